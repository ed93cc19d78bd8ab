"""A person drives: what may be pushed (`Handles`), and the keyboard that pushes it. See `steer.intervention`."""

from __future__ import annotations

import queue
from collections.abc import Mapping
from typing import Final

import numpy as np
from jaxtyping import Float

from steer.errors import ConfigError
from steer.intervention import Takeover
from steer.robot import Frame, RobotSpec

TOGGLE_KEY: Final = "t"
# Raise and lower each axis in turn; none of them stops the robot, judges an episode or toggles.
KEY_PAIRS: Final = ("ws", "ad", "rf", "ik", "jl", "uo", "zx", "cv", "bm", "12", "34", "56", "78", "90")
# Of half the range per tick for deltas and velocities, of the whole range for positions.
DELTA_SHARE: Final = 0.5
POSITION_SHARE: Final = 0.01


class Handles:
    """What a person may push: every axis of a robot, from -1 to 1.

    Deltas and velocities are a share of the push; positions move by a little per tick from the last command; an axis that the robot
    keeps while holding, a gripper, goes to the end of its range that it is pushed to.
    """

    def __init__(self, robot: RobotSpec) -> None:
        action = robot.action
        self.robot = robot
        self.kept = tuple(name in robot.keep for name in action.names)
        share = POSITION_SHARE if robot.hold == "repeat" else DELTA_SHARE / 2
        self._step = (share * (action.high - action.low)).astype(np.float32)

    def command(
        self, push: Mapping[int, float], last: Float[np.ndarray, " a"] | None
    ) -> Float[np.ndarray, " a"] | None:
        """The action for the pushed axes, all others held; None where the robot cannot be told to hold yet."""
        action = self.robot.hold_action(last)
        if action is None:
            return None
        action, spec = action.copy(), self.robot.action
        for axis, amount in push.items():
            if not self.kept[axis]:
                action[axis] += amount * self._step[axis]
            elif amount:
                action[axis] = spec.high[axis] if amount > 0 else spec.low[axis]
        return action


class KeyboardIntervener:
    """A person at the keyboard: one key takes over and gives back, a pair of keys per axis moves it.

    A key press pushes its axis for one tick (the keyboard's repeat makes it a movement). Without a key the robot stands still.
    """

    name = "keyboard"

    def __init__(self, robot: RobotSpec) -> None:
        action = robot.action
        if action.size > len(KEY_PAIRS):
            raise ConfigError(
                f"robot {robot.name!r} has {action.size} axes, the keyboard has keys for {len(KEY_PAIRS)}"
            )
        self._handles = Handles(robot)
        pairs = KEY_PAIRS[: action.size]
        self._pushes = {pair[0]: (axis, 1.0) for axis, pair in enumerate(pairs)}
        self._pushes |= {pair[1]: (axis, -1.0) for axis, pair in enumerate(pairs)}
        self._keys: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._driving = False

    def explain(self) -> str:
        """The keys, in one line."""
        axes = zip(self._handles.robot.action.names, KEY_PAIRS, strict=False)
        keys = ", ".join(f"{name} {pair[0]}/{pair[1]}" for name, pair in axes)
        return f"{TOGGLE_KEY} takes over and gives back; {keys}"

    def press(self, key: str) -> None:
        """A key was pressed; from any thread."""
        if key == TOGGLE_KEY or key in self._pushes:
            self._keys.put(key)

    def begin(self) -> None:
        self._pressed()
        self._driving = False

    def act(self, frame: Frame, last: Float[np.ndarray, " a"] | None) -> Takeover | None:
        push: dict[int, float] = {}
        for key in self._pressed():
            if key == TOGGLE_KEY:
                self._driving, push = not self._driving, {}
            else:
                axis, direction = self._pushes[key]
                push[axis] = direction
        return Takeover(self._handles.command(push, last)) if self._driving else None

    def _pressed(self) -> list[str]:
        keys = []
        while not self._keys.empty():
            keys.append(self._keys.get())
        return keys
