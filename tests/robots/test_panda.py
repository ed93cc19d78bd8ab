"""The bare Panda: it moves as told in metres and radians, holds, homes, and refuses what cannot be sent."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from robots.panda import Panda, create
from robots.panda_arm import HIGHEST_M, LOWEST_M, PANDA_ACTION
from steer.errors import ConfigError, RobotError, SpecError


@pytest.fixture(scope="module")
def connected() -> Iterator[Panda]:
    robot = Panda(seed=1)
    robot.connect()
    yield robot
    robot.close()


@pytest.fixture
def panda(connected: Panda) -> Panda:
    connected.home()
    return connected


def entries(panda: Panda) -> dict[str, float]:
    frame = panda.observe()
    panda.spec.observation.validate_frame(frame.arrays)
    names = panda.spec.observation["state"].names
    return dict(zip(names, frame.arrays["state"].tolist(), strict=True))


def action(**axes: float) -> np.ndarray:
    return np.array([axes.get(name, 0.0) for name in PANDA_ACTION.names], np.float32)


def send(panda: Panda, command: np.ndarray, times: int) -> dict[str, float]:
    for _ in range(times):
        panda.send(command)
    return entries(panda)


def test_deltas_add_up_in_metres(panda: Panda) -> None:
    send(panda, action(dz=-0.02), 5)  # down into the workspace first
    before = entries(panda)
    send(panda, action(dx=0.01, dy=-0.01), 6)
    after = send(panda, action(), 3)
    assert after["ee.x"] - before["ee.x"] == pytest.approx(0.06, abs=0.004)
    assert after["ee.y"] - before["ee.y"] == pytest.approx(-0.06, abs=0.004)
    assert after["ee.z"] - before["ee.z"] == pytest.approx(0.0, abs=0.004)


def test_tiny_deltas_are_not_lost(panda: Panda) -> None:
    send(panda, action(dz=-0.02), 5)
    before = entries(panda)
    after = send(panda, action(dy=0.0005), 40)
    assert after["ee.y"] - before["ee.y"] == pytest.approx(0.02, abs=0.003)


def test_the_target_stays_in_the_workspace(panda: Panda) -> None:
    state = send(panda, action(dx=0.025, dy=0.025, dz=-0.025), 40)
    reached = np.array([state["ee.x"], state["ee.y"], state["ee.z"]])
    assert (reached > LOWEST_M - 0.02).all()
    assert (reached < HIGHEST_M + 0.02).all()


def test_gripper_closes_opens_and_keeps_at_zero(panda: Panda) -> None:
    closed = send(panda, action(gripper=-1.0), 15)
    assert closed["gripper.width"] < 0.01
    kept = send(panda, action(), 10)
    assert (kept["gripper.command"], kept["gripper.width"] < 0.01) == (-1.0, True)
    opened = send(panda, action(gripper=0.3), 15)
    assert opened["gripper.width"] > 0.075


def test_hold_stays_and_keeps_the_gripper(panda: Panda) -> None:
    send(panda, action(dz=-0.02, gripper=-1.0), 10)
    panda.hold()
    before = entries(panda)
    for _ in range(10):
        panda.hold()
    after = entries(panda)
    assert after["gripper.command"] == -1.0
    for axis in ("ee.x", "ee.y", "ee.z"):
        assert after[axis] == pytest.approx(before[axis], abs=0.003)


def test_hold_before_the_first_command_leaves_the_gripper_open(panda: Panda) -> None:
    panda.hold()
    assert entries(panda)["gripper.command"] == 1.0


def test_sent_is_what_the_bounds_allow(panda: Panda) -> None:
    sent = panda.send(action(dx=1.0, droll=-1.0, gripper=5.0))
    np.testing.assert_allclose(sent, action(dx=0.025, droll=-0.15, gripper=1.0))


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros(6, np.float32),
        np.zeros(7),
        np.full(7, np.nan, np.float32),
        np.array([np.inf] * 7, np.float32) * -np.nan,
    ],
    ids=["short", "float64", "nan", "nan and inf"],
)
def test_what_cannot_be_sent_is_refused_and_moves_nothing(panda: Panda, bad: np.ndarray) -> None:
    before = entries(panda)
    with pytest.raises(SpecError):
        panda.send(bad)
    assert entries(panda) == before


def test_home_returns_near_the_start_with_the_gripper_open(panda: Panda) -> None:
    before = entries(panda)
    send(panda, action(dx=0.02, dz=-0.02, gripper=-1.0), 10)
    panda.home()
    after = entries(panda)
    assert after["gripper.command"] == 1.0
    assert np.linalg.norm([after[f"ee.{axis}"] - before[f"ee.{axis}"] for axis in "xyz"]) < 0.1


def test_same_seed_same_home() -> None:
    states = []
    for _ in range(2):
        robot = Panda(seed=4)
        robot.connect()
        states.append(robot.observe().arrays["state"])
        robot.close()
    np.testing.assert_array_equal(states[0], states[1])


def test_views_are_part_of_the_spec_and_show_the_hand_moving() -> None:
    robot = create("", {"images": "front,wrist", "image_size": "32", "seed": "2"})
    robot.connect()
    before = robot.observe().arrays
    robot.spec.observation.validate_frame(before)
    for _ in range(5):
        robot.send(action(dx=0.02, dz=-0.02))
    after = robot.observe().arrays
    assert (before["front"] != after["front"]).any()
    robot.close()


def test_an_arm_that_is_not_connected_says_so() -> None:
    robot = Panda()
    with pytest.raises(RobotError, match=r"connect\(\) first"):
        robot.observe()
    robot.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"sed": "1"}, "no options.*sed.*seed"), ({"seed": "one"}, "whole number"), ({"images": "top"}, "front")],
)
def test_options_that_are_not_meant_are_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create("", options)
