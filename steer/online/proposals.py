"""Candidates at online states: the frozen policy's and, from the version that played them on, the student's.

They are what the critic backs up and holds down, so they must be what it is asked about later. One file per round, so that a
resumed run has the very candidates it had, though the student that made them is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float

from steer.data.candidates import candidates, read_samples, sample_frames, write_samples
from steer.data.frames import Frames
from steer.data.store import EpisodeStore
from steer.online.config import OnlineConfig
from steer.policy import Policy

# Separates the student's noise from the frozen policy's at the same frame.
_STUDENT_STREAM = 1


class Proposals:
    """Samples and remembers. K = base_samples + student_samples at online states, base_samples at offline ones."""

    def __init__(self, base: Policy, folder: Path, config: OnlineConfig) -> None:
        self._base, self._folder, self._config, self._seed = base, folder, config, config.proposal_seed

    def offline(self, store: EpisodeStore) -> Float[np.ndarray, "f k h a"]:
        """The frozen policy's samples, from the cache beside the store where they are there."""
        return candidates(store, self._base, self._config.base_samples, self._seed, self._config.temperature)

    def online(self, number: int, frames: Frames, load_student: Callable[[], Policy]) -> Float[np.ndarray, "f k h a"]:
        """Both policies' samples at the frames of round `number`, from its file where that is there."""
        config, base = self._config, self._base.spec
        samples = config.base_samples + config.student_samples
        shape = (len(frames), samples, base.horizon, base.action.size)
        path = self._folder / f"round-{number:06d}.npy"
        kept = read_samples(path, shape)
        if kept is None:
            student = load_student()
            kept = np.concatenate(
                [
                    sample_frames(self._base, frames, config.base_samples, self._seed, config.temperature),
                    sample_frames(
                        student, frames, config.student_samples, self._seed + _STUDENT_STREAM, config.temperature
                    ),
                ],
                axis=1,
            )
            write_samples(path, kept)
        return kept
