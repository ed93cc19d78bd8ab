"""Interventions: somebody else drives the robot for a while, a person or a script, and gives it back.

An intervener is asked once per tick, before the policy's plan. While it acts, the plan is dropped and nothing is asked of the
server; its actions pass the same safety filter, and its steps are flagged. When it lets go, the next decision starts from the
frames of that moment.
"""

from __future__ import annotations

import queue
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from jaxtyping import Float

from steer.errors import ConfigError
from steer.robot import Frame, RobotSpec

TOGGLE_KEY: Final = "t"
# Raise and lower each axis in turn; none of them stops the robot, judges an episode or toggles.
KEY_PAIRS: Final = ("ws", "ad", "rf", "ik", "jl", "uo", "zx", "cv", "bm", "12", "34", "56", "78", "90")
# Of half the range per tick for deltas and velocities, of the whole range for positions.
DELTA_SHARE: Final = 0.5
POSITION_SHARE: Final = 0.01


@dataclass(frozen=True)
class Takeover:
    """What the one who took over wants at this tick; action None: stand still."""

    action: Float[np.ndarray, " a"] | None


class Intervener(Protocol):
    """Takes over when it wants to. Must not block."""

    @property
    def name(self) -> str: ...

    def begin(self) -> None:
        """An episode begins; the policy drives."""
        ...

    def act(self, frame: Frame, last: Float[np.ndarray, " a"] | None) -> Takeover | None:
        """None: the policy drives. last: the last command sent in this episode, None before the first."""
        ...


class KeyboardIntervener:
    """A person at the keyboard: one key takes over and gives back, a pair of keys per axis moves it.

    A key press moves its axis by a small step for one tick (the keyboard's repeat makes it a movement); an axis that the robot
    keeps while holding, a gripper, goes to the end of its range instead. Without a key the robot stands still.
    """

    name = "keyboard"

    def __init__(self, robot: RobotSpec) -> None:
        action = robot.action
        if action.size > len(KEY_PAIRS):
            raise ConfigError(
                f"robot {robot.name!r} has {action.size} axes, the keyboard has keys for {len(KEY_PAIRS)}"
            )
        self._robot = robot
        self._moves = {
            key: (axis, sign)
            for axis, pair in enumerate(KEY_PAIRS[: action.size])
            for key, sign in zip(pair, (1, -1), strict=True)
        }
        share = POSITION_SHARE if robot.hold == "repeat" else DELTA_SHARE / 2
        self._step = (share * (action.high - action.low)).astype(np.float32)
        self._keys: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._driving = False

    def explain(self) -> str:
        """The keys, in one line."""
        axes = zip(self._robot.action.names, KEY_PAIRS, strict=False)
        return f"{TOGGLE_KEY} takes over and gives back: " + ", ".join(
            f"{name} {up}/{down}" for name, (up, down) in axes
        )

    def press(self, key: str) -> None:
        """A key was pressed; from any thread."""
        if key == TOGGLE_KEY or key in self._moves:
            self._keys.put(key)

    def begin(self) -> None:
        self._pressed()
        self._driving = False

    def act(self, frame: Frame, last: Float[np.ndarray, " a"] | None) -> Takeover | None:
        moves: set[str] = set()
        for key in self._pressed():
            if key == TOGGLE_KEY:
                self._driving, moves = not self._driving, set[str]()
            else:
                moves.add(key)
        return Takeover(self._moved(last, moves)) if self._driving else None

    def _moved(self, last: Float[np.ndarray, " a"] | None, keys: set[str]) -> Float[np.ndarray, " a"] | None:
        action = self._robot.hold_action(last)
        if action is None or not keys:
            return action
        action = action.copy()
        spec = self._robot.action
        for key in keys:
            axis, sign = self._moves[key]
            if spec.names[axis] in self._robot.keep:
                action[axis] = spec.high[axis] if sign > 0 else spec.low[axis]
            else:
                action[axis] += sign * self._step[axis]
        return action

    def _pressed(self) -> list[str]:
        keys = []
        while not self._keys.empty():
            keys.append(self._keys.get())
        return keys
