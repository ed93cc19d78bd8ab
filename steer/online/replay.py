"""`Replay`: what the critic learns from. Offline frames stay as they are; online ones grow by whole episodes, one round at a time.

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

from steer.data.frames import Frames, join_frames
from steer.data.sampling import Transitions, join_transitions
from steer.errors import ConfigError
from steer.training.objective import Sampler

MakeSampler = Callable[[int, Frames, Float[np.ndarray, "f k h a"], int], Sampler]
"""Transitions of so many rows per batch, from these frames and candidates, with this seed."""


@dataclass(frozen=True)
class Data:
    """Frames, and K proposed chunks at each of them."""

    frames: Frames
    proposals: Float[np.ndarray, "f k h a"]

    def join(self, other: Data) -> Data:
        """Both, this one first."""
        return Data(join_frames([self.frames, other.frames]), np.concatenate([self.proposals, other.proposals]))


class Replay:
    """Offline and online data, and batches that mix them."""

    def __init__(self, offline: Data | None, offline_share: float) -> None:
        if offline is None and offline_share > 0:
            raise ConfigError(
                f"{offline_share:g} of each batch should be offline data, but there is none: give --offline, or an "
                "offline share of 0"
            )
        self.offline = offline if offline_share > 0 else None
        self.online: Data | None = None
        self._share = offline_share

    def grow(self, new: Data) -> None:
        """Add a round's episodes."""
        self.online = new if self.online is None else self.online.join(new)

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
