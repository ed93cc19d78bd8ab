"""The engine: propose K, refine, score in one batch, select. No network, no framework, no robot.

    requests ─> policy.encode ─> policy.sample ─> clip ─┬─> refiners ─┐
            └─> critic.encode (once) ──────────────────┴──> score ────┴─> reduce ─> choose ─> Decision

What is scored is what will be executed: candidates are clipped before they are scored, their first d steps are the committed
ones, and the critic sees exactly the d + E steps that will have run. K = 1, or no critic, is the policy's own answer.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from steer.action import ActionSpec
from steer.critic import Critic
from steer.decision import Decision, Request
from steer.distinct import distinct
from steer.errors import SpecError, UnsupportedError
from steer.observation import Batch, Observation, ObservationSpec
from steer.policy import Context, Policy
from steer.refiner import Refiner
from steer.selection import choose, reduce_scores


@dataclass
class _Proposal:
    """Candidates on their way through one decision: which are finite, how many numbers of these were clipped, who made each."""

    candidates: Float[np.ndarray, "b k h a"]
    usable: Bool[np.ndarray, "b k"]
    clipped: Int[np.ndarray, " b"]
    origins: tuple[str, ...]
    timings_s: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Measure one part; its seconds go into the decision."""
        start = time.perf_counter()
        yield
        self.timings_s[part] = time.perf_counter() - start


class Engine:
    """Decides. One call holds requests of one bucket; a single request is a batch of one."""

    def __init__(self, policy: Policy | None, critic: Critic | None = None, refiners: Sequence[Refiner] = ()) -> None:
        """policy None: only candidates brought by the caller are scored. critic None: the policy alone."""
        if policy is None and critic is None:
            raise SpecError("an engine needs a policy, a critic or both")
        if refiners and critic is None:
            raise SpecError(
                "refined candidates are only useful with a critic to score them: give one, or drop the refiners"
            )
        if policy is not None and critic is not None:
            problems = policy.spec.action.differences(critic.spec.action)
            if problems:
                raise SpecError("policy and critic do not agree:\n  " + "\n  ".join(problems))
        self.policy = policy
        self.critic = critic
        self.refiners = tuple(refiners)

    @property
    def action(self) -> ActionSpec:
        return self._model.spec.action

    @cached_property
    def observation(self) -> ObservationSpec:
        """Every key that policy and critic want, with the longer of their windows."""
        specs = [model.spec.observation for model in (self.policy, self.critic) if model is not None]
        arrays = {array.name: array for spec in reversed(specs) for array in spec.arrays}
        return ObservationSpec(tuple(arrays.values()), max(spec.window for spec in specs))

    @property
    def horizon(self) -> int:
        """H of proposed chunks; without a policy, the longest prefix the critic scores."""
        if self.policy is not None:
            return self.policy.spec.horizon
        assert self.critic is not None
        return max(self.critic.spec.prefixes)

    def decide(self, requests: Sequence[Request]) -> list[Decision]:
        """One decision per request. All must ask for the same K, d, E and temperature (one bucket)."""
        executed = self._check(requests)
        start = time.perf_counter()
        proposal, policy_context = self._propose(requests)
        proposal.timings_s["propose"] = time.perf_counter() - start
        return self._judge(requests, proposal, policy_context, executed)

    def rerank(self, requests: Sequence[Request]) -> list[Decision]:
        """Like `decide`, for candidates that the requests bring along: V-GPS for a policy nobody gives us."""
        if self.critic is None:
            raise UnsupportedError("this server has no critic, so it cannot rank candidates: start it with one")
        executed = self._check(requests)
        start = time.perf_counter()
        brought = [request.candidates for request in requests]
        if any(candidates is None for candidates in brought):
            raise SpecError("rerank: the request brings no candidates: float32[K, H, A] in the robot's units")
        raw = np.stack([c for c in brought if c is not None])
        proposal = self._admit(raw, requests, ("caller",) * raw.shape[1])
        proposal.timings_s["propose"] = time.perf_counter() - start
        return self._judge(requests, proposal, None, executed)

    # -- the parts, in the order of the picture above

    def _check(self, requests: Sequence[Request]) -> int:
        """Refuse what cannot be done; returns E, the steps that will be executed after the committed ones."""
        first = requests[0]
        buckets = {_bucket(request) for request in requests}
        if len(buckets) != 1:
            raise SpecError(
                f"requests of {len(buckets)} different buckets in one batch: split them by K, d, E, temperature, and whether "
                "the choice asks the critic"
            )
        for request in requests:
            self.observation.validate(request.observation)
            if request.committed is not None:
                self.action.validate(request.committed, "committed actions")
            if request.candidates is not None:
                self._check_brought(request.candidates)
        horizon = self.horizon if first.candidates is None else int(first.candidates.shape[1])
        committed = first.num_committed
        if first.candidates is None:
            if self.policy is None:
                raise UnsupportedError("this engine has no policy: bring candidates and ask for a rerank")
            self.policy.spec.check_request(first.num_samples, first.temperature, committed)
        executed = first.execute or horizon - committed
        if executed < 1 or committed + executed > horizon:
            raise SpecError(
                f"{committed} committed and {first.execute} executed steps do not fit a chunk of {horizon}: "
                "their sum may be at most the horizon"
            )
        if self._scores(first):
            assert self.critic is not None
            if self.critic.spec.scored_steps(committed + executed) <= committed:
                raise UnsupportedError(
                    f"the critic scores {self.critic.spec.scores} steps, all of which are among the {committed} committed ones: "
                    "there is nothing to choose by, commit none"
                )
        return executed

    def _check_brought(self, candidates: Float[np.ndarray, "k h a"]) -> None:
        self.action.check_shape(candidates, "candidates")
        if candidates.ndim != 3 or 0 in candidates.shape:
            raise SpecError(f"candidates: got shape {candidates.shape}, expected (K, H, A) with at least one of each")

    def _propose(self, requests: Sequence[Request]) -> tuple[_Proposal, Context]:
        assert self.policy is not None
        first = requests[0]
        context = self.policy.encode(self._batch(requests, self.policy.spec.observation))
        seeds = np.array([request.seed for request in requests], np.int64)
        raw = self.policy.sample(context, first.num_samples, seeds, first.temperature, _committed(requests))
        expected = (len(requests), first.num_samples, self.policy.spec.horizon, self.action.size)
        self.action.check_shape(raw, "the policy's candidates")
        if raw.shape != expected:
            raise SpecError(f"the policy's candidates: got shape {raw.shape}, expected (B, K, H, A) = {expected}")
        return self._admit(raw, requests, ("policy",) * first.num_samples), context

    def _admit(
        self, raw: Float[np.ndarray, "b k h a"], requests: Sequence[Request], origins: tuple[str, ...]
    ) -> _Proposal:
        """Write the committed steps, mark what is not finite (infinity must not become a bound), and clip."""
        committed = _committed(requests)
        if committed is not None:
            raw = raw.copy()
            raw[:, :, : committed.shape[1]] = committed[:, None]
        usable = np.isfinite(raw).all(axis=(2, 3))
        candidates, moved = self.action.clip(raw)
        if not usable.any(axis=1).all():
            raise SpecError(
                "every candidate holds a number that is not finite: the policy's weights or its input are broken"
            )
        clipped = (moved & usable[:, :, None, None]).sum(axis=(1, 2, 3))
        return _Proposal(candidates, usable, clipped, origins)

    def _judge(
        self, requests: Sequence[Request], proposal: _Proposal, policy_context: Context, executed: int
    ) -> list[Decision]:
        """Refine, score and select."""
        members = np.zeros((0, *proposal.usable.shape), np.float32)
        if self._scores(requests[0]):
            assert self.critic is not None
            with proposal.timed("encode"):
                critic_context = self.critic.encode(self._batch(requests, self.critic.spec.observation))
            with proposal.timed("refine"):
                self._refine(requests, proposal, policy_context, critic_context, executed)
            with proposal.timed("score"):
                steps = self.critic.spec.scored_steps(requests[0].num_committed + executed)
                members = self._score(critic_context, np.nan_to_num(proposal.candidates[:, :, :steps]))
        with proposal.timed("select"):
            return [
                self._select(row, request, proposal, members[:, row], executed) for row, request in enumerate(requests)
            ]

    def _score(self, context: Context, actions: Float[np.ndarray, "b k e a"]) -> Float[np.ndarray, "m b k"]:
        """The critic's scores; chunks that are equal as far as they are scored are scored once."""
        assert self.critic is not None
        first, where = distinct(actions)
        repeated = first.shape[1] < actions.shape[1]
        asked = np.take_along_axis(actions, first[:, :, None, None], axis=1) if repeated else actions
        members = self.critic.score(context, asked)
        expected = (self.critic.spec.members, *asked.shape[:2])
        if members.shape != expected:
            raise SpecError(f"the critic's scores: got shape {members.shape}, expected (M, B, K) = {expected}")
        if not np.isfinite(members).all():
            raise SpecError("the critic's scores are not finite: its weights or its input are broken")
        return np.take_along_axis(members, where[None], axis=2) if repeated else members

    def _refine(
        self,
        requests: Sequence[Request],
        proposal: _Proposal,
        policy_context: Context,
        critic_context: Context,
        executed: int,
    ) -> None:
        """Append what the refiners add. They start from the policy's candidates, not from each other's."""
        seeds = np.array([request.seed for request in requests], np.int64)
        start = np.nan_to_num(proposal.candidates)
        committed = requests[0].num_committed
        for refiner in self.refiners:
            added, origins = refiner.refine(
                policy_context, critic_context, start, seeds, committed + executed, committed
            )
            extra = self._admit(added, requests, origins)
            proposal.candidates = np.concatenate([proposal.candidates, extra.candidates], axis=1)
            proposal.usable = np.concatenate([proposal.usable, extra.usable], axis=1)
            proposal.clipped = proposal.clipped + extra.clipped
            proposal.origins += extra.origins

    def _select(
        self, row: int, request: Request, proposal: _Proposal, scores: Float[np.ndarray, "m k"], executed: int
    ) -> Decision:
        keep = np.flatnonzero(proposal.usable[row])
        scores = scores[:, keep]
        reduce, rule = "none", "first"
        values = np.zeros(len(keep), np.float32)
        if scores.size:
            assert self.critic is not None
            reduce = self.critic.spec.reduction if request.selection.reduce == "default" else request.selection.reduce
            values = reduce_scores(scores, reduce, request.selection.bound)
            rule = request.selection.choose
        elif request.selection.choose == "random":
            rule = "random"
        chosen = choose(values, request.selection, request.seed) if rule != "first" else 0
        return Decision(
            candidates=proposal.candidates[row, keep],
            origins=tuple(proposal.origins[k] for k in keep),
            scores=scores,
            values=values,
            chosen=chosen,
            committed=request.num_committed,
            executed=executed,
            seed=request.seed,
            temperature=request.temperature,
            reduce=reduce,
            choose=rule,
            policy_version=self.policy.version if self.policy is not None else "caller",
            critic_version=self.critic.version if scores.size and self.critic is not None else "",
            clipped=int(proposal.clipped[row]),
            dropped=int((~proposal.usable[row]).sum()),
            timings_s=proposal.timings_s,
        )

    # -- helpers

    @property
    def _model(self) -> Policy | Critic:
        model = self.policy if self.policy is not None else self.critic
        assert model is not None
        return model

    def _scores(self, request: Request) -> bool:
        """Is the critic asked at all? Not when there is nothing to choose between, or the rule ignores it."""
        if self.critic is None or not request.selection.asks_critic:
            return False
        return request.candidates is not None or request.num_samples > 1 or bool(self.refiners)

    def _batch(self, requests: Sequence[Request], spec: ObservationSpec) -> Batch:
        """The keys and the newest `spec.window` frames that one model wants."""
        observations = [_newest(request.observation, spec.window) for request in requests]
        return Batch.stack(observations, [request.task for request in requests], spec.keys)


def _bucket(request: Request) -> Hashable:
    """What requests of one batch have in common."""
    return (
        request.num_samples,
        request.num_committed,
        request.execute,
        request.temperature,
        request.candidates is None,
        request.selection.asks_critic,
    )


def _committed(requests: Sequence[Request]) -> Float[np.ndarray, "b d a"] | None:
    rows = [request.committed for request in requests]
    if rows[0] is None or not len(rows[0]):
        return None
    return np.stack([row for row in rows if row is not None])


def _newest(observation: Observation, window: int) -> Observation:
    if len(observation.mask) == window:
        return observation
    arrays: Mapping[str, np.ndarray] = {key: value[-window:] for key, value in observation.arrays.items()}
    return Observation(arrays, observation.mask[-window:], observation.time_s)
