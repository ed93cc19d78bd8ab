"""Any gymnasium environment in Steer's vocabulary, and what is said when it does not fit."""

from __future__ import annotations

from dataclasses import replace

import gymnasium
import numpy as np
import pytest

from steer.environment import WHOLE, Environment
from steer.errors import ConfigError, SpecError
from steer.robot import read_robot, write_robot
from tests.evaluation.fakes import Reach
from tests.readme.my_arm import ENTRIES


class Talkative(Reach):
    """Shows more than its robot spec lists."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = gymnasium.spaces.Dict(
            {**self.observation_space.spaces, "clock": gymnasium.spaces.Box(0, 9, (1,), np.float32)}
        )

    def _observe(self) -> dict[str, np.ndarray]:
        return {**super()._observe(), "clock": np.zeros(1, np.float32)}


REACH = "tests.readme.my_arm:Reach-v0"


def test_a_strangers_environment_drafts_its_robot() -> None:
    environment = Environment(REACH)
    robot = environment.robot
    assert (robot.action.kind, robot.action.frame, robot.action.rate_hz) == ("unknown", "unknown", 10.0)
    assert robot.action.size == 4
    assert robot.observation["state"].shape == (len(ENTRIES),)


def test_frames_conform_and_repeat_with_their_seed() -> None:
    environment = Environment(REACH)
    first = environment.reset(3)
    environment.robot.observation.validate_frame(first.arrays)
    moved = environment.step(np.full(4, 0.05, np.float32))
    assert moved.frame.time_s == pytest.approx(0.1)
    again = environment.reset(3)
    assert np.array_equal(first.arrays["state"], again.arrays["state"])
    assert not np.array_equal(again.arrays["state"], environment.reset(4).arrays["state"])


def test_success_is_read_from_info() -> None:
    environment = Environment(REACH)
    frame = environment.reset(0)
    for _ in range(24):
        towards = np.clip((frame.arrays["state"][4:] - frame.arrays["state"][:3]) * 0.5, -0.05, 0.05)
        outcome = environment.step(np.append(towards, 0).astype(np.float32))
        frame = outcome.frame
        if outcome.terminated:
            break
    assert outcome.success
    assert outcome.reward == 1.0


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (np.zeros(3, np.float32), r"A=4"),
        (np.full(4, np.nan, np.float32), "not finite"),
        (np.full(4, 1.0, np.float32), r"expected \[-0\.05"),
        (np.zeros(4), "expected a float32 array"),
    ],
)
def test_actions_that_do_not_conform_are_refused(action: np.ndarray, words: str) -> None:
    environment = Environment(REACH)
    environment.reset(0)
    with pytest.raises(SpecError, match=words):
        environment.step(action)


def test_observations_are_mapped_by_name() -> None:
    assert Environment(REACH, keys={"pose": WHOLE}).robot.observation.keys == ("pose",)
    with pytest.raises(ConfigError, match=r"no observations \['pixels'\]"):
        Environment(REACH, keys={"pose": "pixels"})


def test_what_the_robot_spec_does_not_list_is_left_out() -> None:
    gymnasium.register("Talkative-v0", Talkative)
    environment = Environment("Talkative-v0")
    assert environment.reset(0).arrays.keys() == {"state"}
    with pytest.raises(ConfigError, match="nothing is mapped to"):
        Environment("Talkative-v0", keys={"clock": "clock"})


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match="nothing-v0"):
        Environment("nothing-v0")
    with pytest.raises(ConfigError, match="does not take these options"):
        Environment(REACH, {"gravity": 0})
    environment = Environment("steer/PickPlace-v0")
    environment.reset(0)
    with pytest.raises(ConfigError, match="gives no pictures"):
        environment.render()


def test_a_sidecar_survives_and_is_named_when_it_does_not(tmp_path) -> None:
    robot = replace(Environment(REACH).robot, keep=("a3",))
    write_robot(tmp_path / "robot.json", robot)
    assert read_robot(tmp_path / "robot.json") == robot
    with pytest.raises(ConfigError, match="cannot be read"):
        read_robot(tmp_path / "absent.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ConfigError, match="is not JSON"):
        read_robot(tmp_path / "bad.json")
