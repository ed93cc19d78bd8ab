"""A gamepad's events, written into a pipe instead of coming from a driver."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from steer.client.gamepad import DRIVE_BUTTON, GamepadIntervener
from steer.errors import RobotError
from steer.robot import Frame
from steer.spec import Array
from tests.fakes import ROBOT

BUTTON, STICK, INITIAL = 1, 2, 0x80
FRAME = Frame({}, 0.0)


class Pad:
    """The driver's side of the pipe."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # so that opening to write does not wait
        self._writing = os.open(path, os.O_WRONLY)
        self.intervener = GamepadIntervener(replace(ROBOT, keep=("dz",)), path)

    def send(self, kind: int, number: int, value: int) -> None:
        os.write(self._writing, struct.pack("=IhBB", 0, value, kind, number))

    def action(self, last: Array | None = None) -> Array | None:
        takeover = self.intervener.act(FRAME, last)
        return None if takeover is None else takeover.action

    def unplug(self) -> None:
        os.close(self._writing)
        os.close(self._reading)


@pytest.fixture
def pad(tmp_path: Path) -> Iterator[Pad]:
    made = Pad(tmp_path / "js0")
    yield made
    made.intervener.close()


def test_it_drives_while_the_shoulder_button_is_held(pad: Pad) -> None:
    pad.send(STICK | INITIAL, 1, 0)
    pad.send(STICK, 1, -32767)  # left stick up: the first axis
    assert pad.action() is None
    pad.send(BUTTON, DRIVE_BUTTON, 1)
    np.testing.assert_allclose(pad.action(), [0.05, 0, 0])
    np.testing.assert_allclose(pad.action(), [0.05, 0, 0])  # it is still pushed
    pad.send(STICK, 1, 3000)  # within the dead zone
    pad.send(STICK, 0, 16384)
    np.testing.assert_allclose(pad.action(), [0, -0.025, 0], atol=1e-4)
    pad.send(BUTTON, DRIVE_BUTTON, 0)
    assert pad.action() is None
    pad.unplug()


def test_a_and_b_move_the_axis_that_is_kept(pad: Pad) -> None:
    pad.send(BUTTON, DRIVE_BUTTON, 1)
    pad.send(BUTTON, 0, 1)
    np.testing.assert_allclose(pad.action(), [0, 0, 0.1])
    pad.send(BUTTON, 0, 0)
    np.testing.assert_allclose(pad.action(np.array([0, 0, 0.1], np.float32)), [0, 0, 0.1])
    pad.send(BUTTON, 1, 1)
    np.testing.assert_allclose(pad.action(), [0, 0, -0.1])
    pad.unplug()


def test_one_that_is_pulled_out_is_an_error(pad: Pad) -> None:
    pad.send(BUTTON, DRIVE_BUTTON, 1)
    assert pad.action() is not None
    pad.unplug()
    with pytest.raises(RobotError, match="gone"):
        pad.action()


def test_without_one_the_keyboard_is_named(tmp_path: Path) -> None:
    with pytest.raises(RobotError, match=r"no gamepad at .*use the keyboard"):
        GamepadIntervener(ROBOT, tmp_path / "js9")


def test_what_does_what_is_explained(pad: Pad) -> None:
    text = pad.intervener.explain()
    assert "dx left stick up, dy left stick left, dz A/B" in text
    pad.unplug()
