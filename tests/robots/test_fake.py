"""The fake robot is exact, and fails exactly where it is told to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from robots.fake import POINT_MASS, FakeRobot, create
from steer.errors import ConfigError, RobotError, SpecError
from steer.observation import ObservationSpec
from steer.spec import ArraySpec


def connected(**kwargs: object) -> FakeRobot:
    robot = FakeRobot(**kwargs)  # type: ignore[arg-type]  # passed on as given
    robot.connect()
    robot.home()
    return robot


def move(dx: float, dy: float = 0.0, gripper: float = 1.0) -> np.ndarray:
    return np.array([dx, dy, gripper], np.float32)


def test_the_state_is_the_sum_of_what_was_sent() -> None:
    robot = connected()
    robot.send(move(0.05, -0.1))
    robot.send(move(0.05, -0.1))
    np.testing.assert_allclose(robot.observe().arrays["state"], [0.1, -0.2], atol=1e-6)
    robot.spec.observation.validate_frame(robot.observe().arrays)


def test_absolute_commands_replace_the_state() -> None:
    spec = replace(POINT_MASS, action=replace(POINT_MASS.action, kind="absolute", reference="none"), hold="repeat")
    robot = connected(spec=spec)
    robot.send(move(0.05))
    robot.send(move(0.02))
    robot.hold()
    np.testing.assert_allclose(robot.observe().arrays["state"], [0.02, 0.0], atol=1e-6)


def test_hold_keeps_the_place_and_the_gripper() -> None:
    robot = connected()
    robot.send(move(0.05, gripper=-1.0))
    robot.hold()
    np.testing.assert_allclose(robot.sent[-1], move(0.0, gripper=-1.0))
    assert robot.holds == 1


def test_it_fails_after_the_given_number_of_commands() -> None:
    robot = connected(fail_after=2)
    robot.send(move(0.0))
    robot.send(move(0.0))
    with pytest.raises(RobotError, match="after 2 commands"):
        robot.send(move(0.0))
    with pytest.raises(RobotError):
        robot.observe()


def test_a_frozen_sensor_keeps_its_frame_and_time() -> None:
    ticks = iter(range(100))
    robot = connected(freeze_after=1, clock=lambda: float(next(ticks)))
    robot.send(move(0.05))
    stale = robot.observe()
    robot.send(move(0.05))
    assert robot.observe() is stale


def test_bounds_and_refusals() -> None:
    robot = connected()
    np.testing.assert_allclose(robot.send(move(9.0)), move(0.1))
    for bad in (move(np.nan), np.zeros(2, np.float32)):
        with pytest.raises(SpecError):
            robot.send(bad)
    assert len(robot.sent) == 1


def test_other_specs_get_images_and_longer_vectors() -> None:
    observation = ObservationSpec((ArraySpec("pose", "float32", (5,)), ArraySpec("front", "uint8", (4, 4, 3))))
    robot = connected(spec=replace(POINT_MASS, observation=observation))
    robot.send(move(0.05))
    frame = robot.observe()
    robot.spec.observation.validate_frame(frame.arrays)
    assert frame.arrays["front"].tolist() == np.ones((4, 4, 3), int).tolist()


def test_not_connected() -> None:
    with pytest.raises(RobotError, match=r"connect\(\) first"):
        FakeRobot().send(move(0.0))


def test_made_by_name_with_faults() -> None:
    robot = create("", {"fail_after": "0"})
    robot.connect()
    with pytest.raises(RobotError):
        robot.observe()
    with pytest.raises(ConfigError, match="no options"):
        create("", {"fail": "1"})
