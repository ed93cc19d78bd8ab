"""`SafetyFilter`: the last thing between an action and the robot. What it cannot let through becomes a hold.

Rules, each counted:

    no action        hold, as the robot's spec says
    not finite       hold; a NaN is never clamped into something that looks like a command
    out of bounds    moved to the bound
    too large a step moved to within `max_step` of the last command, per axis

Standing still is always allowed at once: a hold is not limited by `max_step`.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from jaxtyping import Float

from steer.errors import SteerError
from steer.robot import RobotSpec


class SafetyError(SteerError):
    """What the models say could not be sent, again and again: the run ends, with the robot holding."""


class SafetyFilter:
    """Checks one action per tick. Remembers the last command that was sent."""

    def __init__(self, robot: RobotSpec) -> None:
        self._robot = robot
        self._low, self._high = robot.action.low, robot.action.high
        self._max_step = np.array(robot.max_step, np.float32) if robot.max_step else None
        self._last: Float[np.ndarray, " a"] | None = None
        self.counts: Counter[str] = Counter()
        """How often each rule acted: "held", "not finite", "out of bounds", "large step"."""

    def reset(self) -> None:
        """A new episode begins: nothing was sent yet. Counts stay."""
        self._last = None

    def sent(self, action: Float[np.ndarray, " a"] | None) -> None:
        """What the robot really sent; the next command is limited relative to it."""
        self._last = action

    @property
    def last(self) -> Float[np.ndarray, " a"] | None:
        """The last command of the episode, None before the first."""
        return self._last

    def hold(self) -> Float[np.ndarray, " a"] | None:
        """The command that keeps the robot where it is; None where nothing may be sent, see `RobotSpec.hold_action`."""
        return self._robot.hold_action(self._last)

    def foresee(self, actions: Float[np.ndarray, "n a"]) -> Float[np.ndarray, "n a"]:
        """What `check` will let through when these follow each other and the robot sends what it is told; nothing is counted."""
        ahead = SafetyFilter(self._robot)
        ahead.sent(self._last)
        commands = []
        for action in actions:
            command = ahead.check(action)
            assert command is not None  # the action is finite, or nothing was committed
            ahead.sent(command)
            commands.append(command)
        return np.stack(commands)

    def check(self, action: Float[np.ndarray, " a"] | None) -> Float[np.ndarray, " a"] | None:
        """The command to send for the proposed action, None where there is none; None when nothing may be sent."""
        if action is None:
            self.counts["held"] += 1
            return self.hold()
        self._robot.action.check_shape(action, "action")
        if not np.isfinite(action).all():
            self.counts["not finite"] += 1
            return self.hold()
        return self._limited(self._bounded(action))

    def _bounded(self, action: Float[np.ndarray, " a"]) -> Float[np.ndarray, " a"]:
        bounded: Float[np.ndarray, " a"] = np.clip(action, self._low, self._high)
        self.counts["out of bounds"] += int((bounded != action).any())
        return bounded

    def _limited(self, action: Float[np.ndarray, " a"]) -> Float[np.ndarray, " a"]:
        last = self.hold() if self._last is None else self._last
        if self._max_step is None or last is None:
            return action
        limited: Float[np.ndarray, " a"] = np.clip(action, last - self._max_step, last + self._max_step)
        self.counts["large step"] += int((limited != action).any())
        return limited
