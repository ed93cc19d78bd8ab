"""`GamepadIntervener`: a person with a gamepad, read from Linux's joystick interface without any library.

A driver's file gives one event of eight bytes per change (linux/joystick.h): time u32 in ms, value s16, type u8, number u8.
The numbers of sticks and buttons are those of common gamepads under that interface.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Float

from steer.client.teleoperation import Handles
from steer.errors import RobotError
from steer.intervention import Takeover
from steer.robot import Frame, RobotSpec

DEVICE: Final = Path("/dev/input/js0")

_EVENT: Final = struct.Struct("=IhBB")
_BUTTON, _STICK, _INITIAL = 0x01, 0x02, 0x80
_FULL: Final = 32767
DEAD_ZONE: Final = 0.1

DRIVE_BUTTON: Final = 5
"""Right shoulder: who holds it drives."""
HIGH_BUTTON, LOW_BUTTON = 0, 1
"""A and B: the first axis that the robot keeps (its gripper) to the high and to the low end."""
STICKS: Final = ((1, "left stick up"), (0, "left stick left"), (4, "right stick up"), (3, "right stick left"))
STICKS_MORE: Final = ((7, "cross up"), (6, "cross left"))
"""For the axes in their order; up and left are the negative end of a stick, and positive for the axis."""


class GamepadIntervener:
    """Drives while a shoulder button is held. A context manager; a gamepad that is pulled out is a `RobotError`."""

    name = "gamepad"

    def __init__(self, robot: RobotSpec, device: Path = DEVICE) -> None:
        """Raises `RobotError` where there is no gamepad."""
        self._handles = Handles(robot)
        names = enumerate(robot.action.names)
        moved = [(axis, name) for axis, name in names if not self._handles.kept[axis]]
        self._sticks = {
            number: (axis, f"{name} {how}")
            for (axis, name), (number, how) in zip(moved, STICKS + STICKS_MORE, strict=False)
        }
        self._gripper = next((axis for axis, kept in enumerate(self._handles.kept) if kept), None)
        self._positions: dict[int, float] = {}
        self._pressed: set[int] = set()
        try:
            self._file = os.open(device, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            raise RobotError(f"no gamepad at {device} ({error.strerror}): plug one in, or use the keyboard") from error

    def explain(self) -> str:
        """What does what, in one line."""
        gripper = "" if self._gripper is None else f", {self._handles.robot.action.names[self._gripper]} A/B"
        return (
            "the right shoulder button takes over while it is held; "
            + ", ".join(how for _, how in self._sticks.values())
            + gripper
        )

    def begin(self) -> None: ...

    def act(self, frame: Frame, last: Float[np.ndarray, " a"] | None) -> Takeover | None:
        self._read()
        if DRIVE_BUTTON not in self._pressed:
            return None
        push = {axis: -self._positions.get(number, 0.0) for number, (axis, _) in self._sticks.items()}
        if self._gripper is not None:
            push[self._gripper] = float(HIGH_BUTTON in self._pressed) - float(LOW_BUTTON in self._pressed)
        return Takeover(self._handles.command(push, last))

    def close(self) -> None:
        os.close(self._file)

    def _read(self) -> None:
        """All events since the last tick; never waits."""
        while events := self._events():
            for _, value, kind, number in _EVENT.iter_unpack(events):
                if kind & ~_INITIAL == _STICK:
                    share = value / _FULL
                    self._positions[number] = share if abs(share) > DEAD_ZONE else 0.0
                elif kind & ~_INITIAL == _BUTTON:
                    (self._pressed.add if value else self._pressed.discard)(number)

    def _events(self) -> bytes:
        """Whole events, as the driver gives them; nothing when there are none."""
        try:
            read = os.read(self._file, 64 * _EVENT.size)
        except BlockingIOError:
            return b""
        except OSError as error:
            raise RobotError(f"the gamepad is gone ({error.strerror}): plug it in and start again") from error
        if not read:
            raise RobotError("the gamepad is gone: plug it in and start again")
        return read
