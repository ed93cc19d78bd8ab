"""Policy improvement: which chunks the policy is fitted to, by its family's own supervised loss.

success   what was executed in online episodes that succeeded: the critic's choice, confirmed by the outcome
pa-rl     the proposal that the critic likes best, moved uphill on Q (PA-RL, arXiv 2412.06685): no outcome is waited for

Beside success, what a person did is imitated whatever became of the episode: it is a correction, and the mistake before it was not
the person's. Chunks in which the robot stood still for want of a decision are nobody's and never imitated.

Nothing here knows a family: it gets recorded chunks (`ChunkBatch`), with other `actions` where these are improved.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
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
from steer.online.replay import Data
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


def policy_sampler(
    config: OnlineConfig,
    rows: int,
    online: Data,
    critic: Critic,
    refiner: Refiner | None,
    make: MakeChunks,
    seed: int,
) -> Sampler | None:
    """The batches of `rows` chunks that this round's policy updates learn from; None where there is nothing to learn from yet."""
    frames = online.frames
    executed, weights = imitable(frames, online.proposals.shape[2], config.intervention_weight)
    imitates = config.imitates and len(executed) > 0
    parts: list[Sampler] = []
    if imitates:
        share = rows - rows // 2 if config.climbs else rows
        parts.append(ChosenChunks(make(1, frames, seed), executed, share, seed, weights=weights))
    if config.climbs:
        index = _states(frames, config.target_states, seed)
        targets = better_chunks(online, index, critic, refiner)
        share = rows // 2 if imitates else rows
        # Batches are joined: both halves have weights, or neither.
        ones = None if weights is None or not imitates else np.ones(len(index), np.float32)
        parts.append(ChosenChunks(make(1, frames, seed), index, share, seed + 1, targets, ones))
    return _Joined(parts) if parts else None


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
