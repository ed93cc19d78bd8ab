"""`Replay`: what the critic learns from. Offline frames stay as they are; online ones grow by whole episodes, one round at a time.

A round costs what its own episodes cost, however many there are already (`steer.data.growing`).

Monte-Carlo returns need whole episodes, so nothing of an episode is seen before its end. Streams are drawn per round from the
run's seed: they continue exactly from a saved position as long as the round has the episodes it had.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
from jaxtyping import Float

from steer.data.frames import MEMORY_LIMIT_BYTES, Frames
from steer.data.growing import GrowingArray, GrowingFrames
from steer.data.sampling import Transitions, join_transitions
from steer.training.objective import Sampler

MakeSampler = Callable[[int, Frames, Float[np.ndarray, "f k h a"], int], Sampler]
"""Transitions of so many rows per batch, from these frames and candidates, with this seed."""


@dataclass(frozen=True)
class Data:
    """Frames, and K proposed chunks at each of them."""

    frames: Frames
    proposals: Float[np.ndarray, "f k h a"]


class Replay:
    """Offline and online data, and batches that mix them."""

    def __init__(
        self, offline: Data | None, offline_share: float, memory_limit_bytes: int = MEMORY_LIMIT_BYTES
    ) -> None:
        """memory_limit_bytes: of each online array; a larger one lies in a temporary file."""
        self.offline = offline if offline_share > 0 else None
        self.online: Data | None = None
        self._share, self._limit = offline_share, memory_limit_bytes
        self._frames = GrowingFrames(memory_limit_bytes)
        self._proposals: GrowingArray | None = None

    def grow(self, new: Data) -> None:
        """Add a round's episodes."""
        if self._proposals is None:
            self._proposals = GrowingArray(new.proposals.shape[1:], new.proposals.dtype, self._limit)
        self.online = Data(self._frames.append(new.frames), self._proposals.append(new.proposals))

    def relabel(self, frames: Frames) -> None:
        """The online episodes with other outcomes; nothing else of them may differ."""
        assert self.online is not None
        self._frames.frames = frames
        self.online = replace(self.online, frames=frames)

    def sampler(self, make: MakeSampler, batch_size: int, seed: int) -> MixedSampler:
        """Batches of `batch_size` rows with the wanted share of offline ones."""
        offline_rows = round(batch_size * self._share)
        parts = [(self.offline, offline_rows), (self.online, batch_size - offline_rows)]
        used = [(data, rows) for data, rows in parts if data is not None and rows]
        samplers = [make(rows, data.frames, data.proposals, seed + i) for i, (data, rows) in enumerate(used)]
        return MixedSampler(samplers, min(data.proposals.shape[1] for data, _ in used), seed)


class MixedSampler:
    """The rows of several samplers in one batch; of each one's candidates as many as the poorest has, other ones each time."""

    def __init__(self, samplers: Sequence[Sampler], candidates: int, seed: int) -> None:
        self._samplers, self._candidates = samplers, candidates
        self._rng = np.random.Generator(np.random.PCG64(seed))

    def sample(self) -> Transitions:
        return reduce(join_transitions, [self._thin(sampler.sample()) for sampler in self._samplers])

    def state(self) -> dict[str, Any]:
        return {"parts": [s.state() for s in self._samplers], "generator": dict(self._rng.bit_generator.state)}

    def restore(self, state: Mapping[str, Any]) -> None:
        for sampler, part in zip(self._samplers, state["parts"], strict=True):
            sampler.restore(part)
        self._rng.bit_generator.state = state["generator"]

    def _thin(self, batch: Transitions) -> Transitions:
        there = batch.candidates.shape[1]
        if there == self._candidates:
            return batch
        kept = self._rng.permutation(there)[: self._candidates]
        return replace(batch, candidates=batch.candidates[:, kept], next_candidates=batch.next_candidates[:, kept])
