"""Policy improvement: which chunks the policy is fitted to, by its family's own supervised loss.

success   what was executed in online episodes that succeeded: the critic's choice, confirmed by the outcome
pa-rl     the proposal that the critic likes best, moved uphill on Q (PA-RL, arXiv 2412.06685): no outcome is waited for

Beside success, what a person did is imitated whatever became of the episode: it is a correction, and the mistake before it was not
the person's. Chunks in which the robot stood still for want of a decision are nobody's and never imitated.

Few chunks would be memorised and all else forgotten: until there are enough of them, what succeeded offline fills up the batches.

Nothing here knows a family: it gets recorded chunks (`ChunkBatch`), with other `actions` where these are improved.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Int

from steer.critic import Critic
from steer.data.frames import Frames
from steer.data.sampling import ChunkBatch, join_chunks
from steer.errors import ConfigError
from steer.observation import Batch
from steer.online.config import OnlineConfig
from steer.online.replay import Data, Replay
from steer.refiner import Refiner
from steer.selection import reduce_scores
from steer.spec import Array
from steer.training.objective import Sampler

_STATES_AT_ONCE = 512


class ChunkSource(Sampler, Protocol):
    """What a family's sampler gives: chunks at chosen frames, too."""

    def at(self, index: Int[np.ndarray, " b"]) -> ChunkBatch: ...


MakeChunks = Callable[[int, Frames, int], ChunkSource]
"""Chunks of so many rows per batch, from these frames, with this seed."""


@dataclass(frozen=True)
class _Part:
    """Chunks of one kind: those at `index` of the frames, with other actions where there are `targets`. number: of its stream."""

    number: int
    frames: Frames
    index: Int[np.ndarray, " n"]
    weights: Float[np.ndarray, " n"] | None = None
    targets: Float[np.ndarray, "n h a"] | None = None


def policy_sampler(
    config: OnlineConfig,
    rows: int,
    replay: Replay,
    critic: Critic,
    refiner: Refiner | None,
    make: MakeChunks,
    seed: int,
) -> Sampler | None:
    """The batches of `rows` chunks that this round's policy updates learn from; None where there is nothing to learn from yet."""
    assert replay.online is not None
    parts = _online_parts(config, replay.online, critic, refiner, seed)
    if not parts:
        return None
    rehearsed = _rehearsed(rows - len(parts), max(len(part.index) for part in parts), config.rehearse_below)
    past = _successes(2, replay.offline, config) if rehearsed else None
    shares = _shares(rows - rehearsed if past else rows, len(parts))
    if past:
        parts, shares = [*parts, past], [*shares, rehearsed]
    # Their rows are joined: all have weights, or none.
    weighted = any(part.weights is not None for part in parts)
    return _Joined([_drawn(part, share, weighted, make, seed) for part, share in zip(parts, shares, strict=True)])


def _online_parts(
    config: OnlineConfig, online: Data, critic: Critic, refiner: Refiner | None, seed: int
) -> list[_Part]:
    """What the online episodes teach."""
    parts = []
    if config.imitates and (executed := _successes(0, online, config)):
        parts.append(executed)
    if config.climbs:
        index = _states(online.frames, config.target_states, seed)
        parts.append(_Part(1, online.frames, index, targets=better_chunks(online, index, critic, refiner)))
    return parts


def _successes(number: int, data: Data | None, config: OnlineConfig) -> _Part | None:
    """What is worth imitating of these data; None where nothing is."""
    if data is None:
        return None
    index, weights = imitable(data.frames, data.proposals.shape[2], config.intervention_weight)
    return _Part(number, data.frames, index, weights) if len(index) else None


def _rehearsed(rows: int, known: int, enough: int) -> int:
    """Rows of a batch that what happened offline fills up, where so many chunks are known online."""
    return round(rows * max(0.0, 1 - known / enough)) if enough else 0


def _shares(rows: int, parts: int) -> list[int]:
    """Rows of each part, alike; the first ones take what is over."""
    return [rows // parts + (number < rows % parts) for number in range(parts)]


def _drawn(part: _Part, rows: int, weighted: bool, make: MakeChunks, seed: int) -> ChosenChunks:
    weights = np.ones(len(part.index), np.float32) if weighted and part.weights is None else part.weights
    return ChosenChunks(make(1, part.frames, seed), part.index, rows, seed + part.number, part.targets, weights)


def imitable(
    frames: Frames, horizon: int, intervention_weight: float
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"] | None]:
    """Frames whose next `horizon` executed actions are worth imitating, and their weights (None: all 1).

    Those of successful episodes, and those in which a person acted throughout, wherever they are; but none with a held step.
    """
    index = frames.decisions
    last = frames.finals[frames.episode_of[index]] - 1
    held, corrected = (np.zeros(len(index), np.bool_), np.ones(len(index), np.bool_))
    for step in range(horizon):
        rows = np.minimum(index + step, last)
        held |= frames.flag("held")[rows]
        corrected &= frames.flag("intervention")[rows]
    wanted = frames.success[frames.episode_of[index]] | corrected
    weights = np.where(corrected, np.float32(intervention_weight), np.float32(1))
    kept = wanted & ~held & (weights > 0)
    return index[kept], weights[kept] if corrected.any() else None


def better_chunks(
    data: Data, index: Int[np.ndarray, " n"], critic: Critic, refiner: Refiner | None
) -> Float[np.ndarray, "n h a"]:
    """At each of these frames the chunk with the highest mean Q: of the proposals, the executed one, and what the refiner adds.

    Never worse, to the critic, than the best proposal.
    """
    return np.concatenate(
        [
            _better(data, index[at : at + _STATES_AT_ONCE], critic, refiner)
            for at in range(0, len(index), _STATES_AT_ONCE)
        ]
    )


def _better(data: Data, index: Int[np.ndarray, " b"], critic: Critic, refiner: Refiner | None) -> Any:
    frames, proposed = data.frames, data.proposals[index]
    proposed = np.concatenate([proposed, _executed(frames, index, proposed)[:, None]], axis=1)
    wanted = critic.spec.observation
    arrays, mask = frames.window(index, wanted.window, wanted.keys)
    context = critic.encode(Batch(arrays, mask, tuple(frames.tasks[e] for e in frames.episode_of[index])))
    prefix = max(critic.spec.prefixes)
    if refiner is not None:
        added, _ = refiner.refine(None, context, proposed, np.zeros(len(index), np.int64), prefix, 0)
        proposed = np.concatenate([proposed, added], axis=1)
    steps = critic.spec.scored_steps(prefix)
    values = reduce_scores(critic.score(context, proposed[:, :, :steps]), "mean")
    return proposed[np.arange(len(index)), values.argmax(axis=1)]


def _executed(frames: Frames, index: Int[np.ndarray, " b"], proposed: Array) -> Float[np.ndarray, "b h a"]:
    """What was done from these frames on; where the robot was held meanwhile, the first proposal."""
    rows = np.minimum(index[:, None] + np.arange(proposed.shape[2]), frames.finals[frames.episode_of[index]][:, None])
    held = frames.flag("held")[rows].any(axis=1)
    return np.where(held[:, None, None], proposed[:, 0], frames.actions[rows])


class ChosenChunks:
    """Recorded chunks at chosen frames, uniformly. targets: other actions in their place, one chunk per frame of `index`."""

    def __init__(
        self,
        chunks: ChunkSource,
        index: Int[np.ndarray, " n"],
        batch_size: int,
        seed: int,
        targets: Float[np.ndarray, "n h a"] | None = None,
        weights: Float[np.ndarray, " n"] | None = None,
    ) -> None:
        self._chunks, self._index, self._rows = chunks, index, batch_size
        self._targets, self._weights = targets, weights
        self._rng = np.random.Generator(np.random.PCG64(seed))

    def sample(self) -> ChunkBatch:
        drawn = self._rng.integers(len(self._index), size=self._rows)
        batch = self._chunks.at(self._index[drawn])
        if self._targets is not None:
            batch = replace(batch, actions=self._targets[drawn])
        return batch if self._weights is None else replace(batch, weights=self._weights[drawn])

    def state(self) -> dict[str, Any]:
        return {"frames": len(self._index), "generator": dict(self._rng.bit_generator.state)}

    def restore(self, state: Mapping[str, Any]) -> None:
        if state["frames"] != len(self._index):
            raise ConfigError(
                f"the sampler's state was saved over {state['frames']} frames, there are {len(self._index)}: episodes or "
                "labels of this round have changed since; start anew"
            )
        self._rng.bit_generator.state = state["generator"]


class _Joined:
    """The rows of several samplers of chunks in one batch."""

    def __init__(self, samplers: Sequence[Sampler]) -> None:
        self._samplers = samplers

    def sample(self) -> ChunkBatch:
        batches: list[ChunkBatch] = [sampler.sample() for sampler in self._samplers]
        return reduce(join_chunks, batches)

    def state(self) -> list[Any]:
        return [sampler.state() for sampler in self._samplers]

    def restore(self, state: Sequence[Any]) -> None:
        for sampler, part in zip(self._samplers, state, strict=True):
            sampler.restore(part)


def _states(frames: Frames, limit: int, seed: int) -> Int[np.ndarray, " n"]:
    """At most `limit` of the frames at which an action was taken, by chance."""
    decisions = frames.decisions
    if len(decisions) <= limit:
        return decisions
    return np.sort(np.random.default_rng(seed).choice(decisions, limit, replace=False))
