"""`History`: the last T frames at the control rate. The side that captures owns it."""

from __future__ import annotations

from collections import deque

import numpy as np

from steer.errors import SpecError
from steer.observation import Observation, ObservationSpec
from steer.robot import Frame


class History:
    """Keeps `spec.window` frames; before the episode is that old, the oldest is repeated with its mask False."""

    def __init__(self, spec: ObservationSpec) -> None:
        self.spec = spec
        self._frames: deque[Frame] = deque(maxlen=spec.window)

    def reset(self) -> None:
        """Forget everything: a new episode begins."""
        self._frames.clear()

    def push(self, frame: Frame) -> None:
        """Add the newest frame; raises `SpecError` when it does not conform."""
        self.spec.validate_frame(frame.arrays)
        self._frames.append(frame)

    def observation(self) -> Observation:
        """The window as one observation."""
        if not self._frames:
            raise SpecError("no frame yet: push one before asking for an observation")
        padding = self.spec.window - len(self._frames)
        frames = [self._frames[0]] * padding + list(self._frames)
        arrays = {key: np.stack([frame.arrays[key] for frame in frames]) for key in self.spec.keys}
        return Observation(arrays, np.arange(self.spec.window) >= padding, frames[-1].time_s)
