"""Policy improvement: which chunks the policy is fitted to, by its family's own supervised loss.

success   what was executed in online episodes that succeeded: the critic's choice, confirmed by the outcome
pa-rl     the proposal that the critic likes best, moved uphill on Q (PA-RL, arXiv 2412.06685): no outcome is waited for

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
from steer.observation import Batch
from steer.online.config import OnlineConfig
from steer.online.replay import Data
from steer.refiner import Refiner
from steer.selection import reduce_scores
from steer.training.objective import Sampler

_STATES_AT_ONCE = 512


class ChunkSource(Sampler, Protocol):
    """What a family's sampler gives: chunks at chosen frames, too."""

    def at(self, index: Int[np.ndarray, " b"]) -> ChunkBatch: ...


MakeChunks = Callable[[int, Frames, int], ChunkSource]
"""Chunks of so many rows per batch, from these frames, with this seed."""


def policy_sampler(
    config: OnlineConfig, online: Data, critic: Critic, refiner: Refiner | None, make: MakeChunks, seed: int
) -> Sampler | None:
    """The batches that this round's policy updates learn from; None where there is nothing to learn from yet."""
    rows = config.policy_batch_size
    parts: list[Sampler] = []
    successful = np.flatnonzero(online.frames.success)
    imitates = config.improve in ("success", "both") and len(successful) > 0
    climbs = config.improve in ("pa-rl", "both")
    if imitates:
        parts.append(make(rows - rows // 2 if climbs else rows, online.frames.subset(successful), seed))
    if climbs:
        index = _states(online.frames, config.target_states, seed)
        targets = better_chunks(online, index, critic, refiner)
        parts.append(
            TargetSampler(make(1, online.frames, seed), index, targets, rows // 2 if imitates else rows, seed + 1)
        )
    return _Joined(parts) if parts else None


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
    rows = np.minimum(index[:, None] + np.arange(proposed.shape[2]), frames.finals[frames.episode_of[index]][:, None])
    proposed = np.concatenate([proposed, frames.actions[rows][:, None]], axis=1)
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


class TargetSampler:
    """Recorded chunks at some frames with better actions in their place. targets: one chunk per frame of `index`."""

    def __init__(
        self,
        chunks: ChunkSource,
        index: Int[np.ndarray, " n"],
        targets: Float[np.ndarray, "n h a"],
        batch_size: int,
        seed: int,
    ) -> None:
        self._chunks, self._index, self._targets, self._rows = chunks, index, targets, batch_size
        self._rng = np.random.Generator(np.random.PCG64(seed))

    def sample(self) -> ChunkBatch:
        drawn = self._rng.integers(len(self._index), size=self._rows)
        return replace(self._chunks.at(self._index[drawn]), actions=self._targets[drawn])

    def state(self) -> dict[str, Any]:
        return dict(self._rng.bit_generator.state)

    def restore(self, state: Mapping[str, Any]) -> None:
        self._rng.bit_generator.state = state


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
