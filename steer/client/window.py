"""`SentWindow`: tells the server the session's history by what is new in it.

The client owns the history. After each answered request both sides hold the same window of T frames; the next one sends
only the frames that follow it. What is kept is found by comparing, so whatever a caller passes, the server rebuilds exactly that.
"""

from __future__ import annotations

import numpy as np

from steer import wire
from steer.observation import Observation
from steer.spec import Array
from steer.v1 import steering_pb2


class SentWindow:
    """Remembers the window that the server holds, or nothing while that is not certain."""

    def __init__(self) -> None:
        self._chunk = 0
        self._window: Observation | None = None

    def forget(self) -> None:
        """The server's window is unknown from here on: send all of the next one."""
        self._window = None

    def remember(self, chunk: int, observation: Observation) -> None:
        """The request `chunk` was answered, so the server holds its window now."""
        if len(observation.mask) == 1:
            return  # a window of one frame has nothing to keep
        # A copy, because a caller may fill the same buffers again.
        arrays = {key: value.copy() for key, value in observation.arrays.items()}
        self._chunk, self._window = chunk, Observation(arrays, observation.mask.copy())

    def tell(self, history: steering_pb2.History, observation: Observation) -> dict[str, Array]:
        """Write how to rebuild `observation` from the window that the server holds; returns the frames it lacks."""
        kept = self._kept(observation)
        history.after_chunk = self._chunk if kept else 0
        history.kept_frames = kept
        history.time_s = observation.time_s
        history.mask.CopyFrom(wire.tensor_to_message(observation.mask, "mask"))
        return {key: value[kept:] for key, value in observation.arrays.items()}

    def _kept(self, observation: Observation) -> int:
        """The most frames that end the last window and begin this one."""
        last = self._window
        if last is None or last.arrays.keys() != observation.arrays.keys():
            return 0
        for kept in range(len(last.mask) - 1, 0, -1):
            if all(np.array_equal(last.arrays[k][-kept:], v[:kept]) for k, v in observation.arrays.items()):
                return kept
        return 0
