"""A robot made of nothing, for tests of what drives robots: exact, instant, and failing where it is told to.

A point mass: entry i of every vector is the sum of what axis i was sent (for absolute commands, the last of it), within the
entry's bounds; an image is filled with the number of commands so far. Needs numpy alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from jaxtyping import Float

from robots.limits import within_bounds
from steer.action import ActionAxis, ActionSpec
from steer.errors import RobotError
from steer.observation import ObservationSpec
from steer.options import integer, refuse_unknown
from steer.robot import Frame, RobotSpec
from steer.spec import Array, ArraySpec

POINT_MASS: Final = RobotSpec(
    name="fake",
    action=ActionSpec(
        axes=(
            ActionAxis("dx", "m", -0.1, 0.1),
            ActionAxis("dy", "m", -0.1, 0.1),
            ActionAxis("gripper", "1", -1.0, 1.0),
        ),
        kind="delta",
        frame="base",
        reference="commanded",
        rotation="none",
        gripper="positive_opens",
        rate_hz=20.0,
    ),
    observation=ObservationSpec((ArraySpec("state", "float32", (2,), ("ee.x", "ee.y"), -1.0, 1.0, "m"),)),
    keep=("gripper",),
)


class FakeRobot:
    """A point mass behind `steer.robot.Robot`.

    fail_after: every `send` after that many raises `RobotError`, as does `observe` (a cable was pulled).
    freeze_after: after that many sends, `observe` keeps giving the same frame with its old time (a sensor stalled).
    clock: what frames are stamped with, s.
    sent: everything that was sent since `home`, holding included. holds: how often it was told to hold.
    """

    def __init__(
        self,
        spec: RobotSpec = POINT_MASS,
        fail_after: int | None = None,
        freeze_after: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spec = spec
        self._fail_after = fail_after
        self._freeze_after = freeze_after
        self._clock = clock
        self._connected = False
        self._frame: Frame | None = None
        self._sum = np.zeros(spec.action.size)
        self.sent: list[Float[np.ndarray, " a"]] = []
        self.holds = 0

    @property
    def spec(self) -> RobotSpec:
        return self._spec

    def connect(self) -> None:
        self._connected = True

    def home(self) -> None:
        """Back to zero, with nothing sent."""
        self._check()
        self._sum = np.zeros(self.spec.action.size)
        self.sent.clear()
        self._frame = None

    def observe(self) -> Frame:
        """Where the point is now, unless the sensor is frozen."""
        self._check()
        frozen = self._freeze_after is not None and len(self.sent) >= self._freeze_after
        if self._frame is None or not frozen:
            self._frame = Frame({spec.name: self._read(spec) for spec in self.spec.observation.arrays}, self._clock())
        return self._frame

    def send(self, action: Float[np.ndarray, " a"]) -> Float[np.ndarray, " a"]:
        """Move the point by the action, within its bounds; `SpecError` if it is not finite or of a wrong shape."""
        self._check()
        clipped = within_bounds(self.spec.action, action)
        self._sum = clipped.astype(float) if self.spec.action.kind == "absolute" else self._sum + clipped
        self.sent.append(clipped)
        return clipped

    def hold(self) -> None:
        self.holds += 1
        action = self.spec.hold_action(self.sent[-1] if self.sent else None)
        if action is not None:
            self.send(action)

    def close(self) -> None:
        self._connected = False

    def _check(self) -> None:
        if not self._connected:
            raise RobotError("the fake robot is not connected: call connect() first")
        if self._fail_after is not None and len(self.sent) >= self._fail_after:
            raise RobotError(f"the fake robot fails after {self._fail_after} commands, as it was told to")

    def _read(self, spec: ArraySpec) -> Array:
        shape = tuple(8 if n == -1 else n for n in spec.shape)
        if not np.issubdtype(np.dtype(spec.dtype), np.floating):
            return np.full(shape, len(self.sent) % 256, spec.dtype)
        values = np.zeros(shape)
        entries = values.reshape(-1)
        count = min(entries.size, self._sum.size)
        entries[:count] = self._sum[:count]
        low = -np.inf if spec.low is None else spec.low
        high = np.inf if spec.high is None else spec.high
        return np.clip(values, low, high).astype(spec.dtype)


def create(place: str, options: Mapping[str, str]) -> FakeRobot:
    """`fake:` or `fake:?fail_after=10`; the place is ignored, as there is none."""
    refuse_unknown("robot 'fake'", options, ("fail_after", "freeze_after"))
    fail = integer(options, "fail_after", 0) if "fail_after" in options else None
    freeze = integer(options, "freeze_after", 0) if "freeze_after" in options else None
    return FakeRobot(fail_after=fail, freeze_after=freeze)
