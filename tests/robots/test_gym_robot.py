"""A gymnasium environment as a robot: one step per command, and the episode's end for who asks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest

from robots.fake import POINT_MASS
from robots.gym_robot import GymRobot, create
from steer.errors import ConfigError, RobotError, SpecError
from steer.observation import ObservationSpec
from steer.spec import ArraySpec


class Line(gymnasium.Env[np.ndarray, np.ndarray]):
    """A point on a line that has to pass `far`; counts its steps."""

    observation_space = gymnasium.spaces.Box(-10, 10, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-0.1, 0.1, (3,), np.float32)

    def __init__(self, far: float = 0.25) -> None:
        self.far = far
        self.position = 0.0
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.position, self.steps = float(seed or 0), 0
        return np.array([self.position, 0], np.float32), {"task": "go far"}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.position += float(action[0])
        self.steps += 1
        done = self.position > self.far
        return np.array([self.position, self.steps], np.float32), float(done), done, False, {}


LINE_ROBOT = replace(POINT_MASS, observation=ObservationSpec((ArraySpec("where", "float32", (2,), ("x", "steps")),)))
FORWARD = np.array([0.1, 0.0, 1.0], np.float32)


@pytest.fixture
def line() -> Iterator[GymRobot]:
    gymnasium.register(id="tests/Line-v0", entry_point=Line, disable_env_checker=True)
    robot = GymRobot("tests/Line-v0", robot=LINE_ROBOT, keys={"where": ""})
    robot.connect()
    yield robot
    robot.close()
    del gymnasium.registry["tests/Line-v0"]


def test_each_command_is_one_step(line: GymRobot) -> None:
    line.home()
    line.send(FORWARD)
    line.send(FORWARD)
    np.testing.assert_allclose(line.observe().arrays["where"], [0.2, 2.0], atol=1e-6)


def test_end_of_episode_is_told_and_the_next_one_has_the_next_seed(line: GymRobot) -> None:
    line.home()
    assert (line.seed, line.ended, line.outcome, line.task.instruction) == (0, False, None, "go far")
    for _ in range(3):
        line.send(FORWARD)
    assert line.outcome is not None
    assert (line.ended, line.outcome.reward, line.outcome.terminated, line.outcome.success) == (True, 1.0, True, True)
    with pytest.raises(RobotError, match=r"home\(\)"):
        line.send(FORWARD)
    line.hold()
    assert line.observe().arrays["where"][1] == 3.0
    line.home()
    assert (line.seed, line.ended) == (1, False)
    assert line.observe().arrays["where"][0] == 1.0


def test_hold_is_a_step_in_place(line: GymRobot) -> None:
    line.home()
    line.send(FORWARD)
    line.hold()
    np.testing.assert_allclose(line.observe().arrays["where"], [0.1, 2.0], atol=1e-6)


def test_frames_carry_the_clock_of_the_process(line: GymRobot) -> None:
    line.home()
    first = line.observe()
    assert line.observe() is first
    line.send(FORWARD)
    assert line.observe().time_s > first.time_s


def test_commands_are_clipped_or_refused(line: GymRobot) -> None:
    line.home()
    np.testing.assert_allclose(line.send(FORWARD * 9), [0.1, 0.0, 1.0])
    for bad in (FORWARD * np.float32(np.nan), FORWARD[:2]):
        with pytest.raises(SpecError):
            line.send(bad)
    assert line.observe().arrays["where"][1] == 1.0


def test_nothing_runs_before_home(line: GymRobot) -> None:
    with pytest.raises(RobotError, match=r"home\(\)"):
        line.observe()


def test_an_environment_that_carries_its_spec_needs_nothing_else() -> None:
    robot = create("sim:steer/PickPlace-v0", {"seed": "3", "horizon": "2"})
    robot.home()
    assert robot.spec.name == "panda-pick-place"
    assert robot.seed == 3
    robot.spec.observation.validate_frame(robot.observe().arrays)
    for _ in range(2):
        robot.send(np.zeros(7, np.float32))
    assert robot.ended
    robot.close()


def test_a_name_without_an_environment_is_refused() -> None:
    with pytest.raises(ConfigError, match="gym:ENV_ID"):
        create("", {})
