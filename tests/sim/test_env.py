"""The environment: gymnasium's contract, what it refuses, its images."""

from __future__ import annotations

import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from robots.panda_arm import PANDA_ACTION
from sim.env import PickPlace
from sim.pick_place import STATE_NAMES
from steer.errors import ConfigError, SpecError

STILL = np.array([0, 0, 0, 0, 0, 0, 1], np.float32)


@pytest.mark.parametrize("kwargs", [{}, {"images": ("front", "wrist"), "image_size": 32, "render_mode": "rgb_array"}])
def test_gymnasium_checker_has_nothing_to_say(kwargs: dict[str, object]) -> None:
    env = gymnasium.make("sim:steer/PickPlace-v0", **kwargs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)
    env.close()


def test_registering_twice_changes_nothing() -> None:
    import sim

    before = gymnasium.registry["steer/PickPlace-v0"]
    sim.register()
    assert gymnasium.registry["steer/PickPlace-v0"] is before


def test_registering_loads_no_physics() -> None:
    code = "import sys, sim; print('pybullet' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"


def test_physics_prints_nothing() -> None:
    code = "from sim.env import PickPlace; env = PickPlace(); env.reset(seed=0); env.close()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout, done.stderr) == ("", "")


def test_observation_conforms_to_the_robot_spec(env: PickPlace) -> None:
    observation, info = env.reset(seed=0)
    assert set(observation) == {"state"}
    assert env.robot_spec.observation["state"].names == STATE_NAMES
    env.robot_spec.observation.validate_frame(observation)
    assert info == {"success": False, "task": "put the cube on the disc"}


def test_state_entries_mean_what_they_are_called(env: PickPlace) -> None:
    observation, _ = env.reset(seed=3)
    value = dict(zip(STATE_NAMES, observation["state"].tolist(), strict=True))
    for axis in "xyz":
        assert value[f"cube_from_ee.{axis}"] == pytest.approx(value[f"cube.{axis}"] - value[f"ee.{axis}"], abs=1e-6)
    for axis in "xy":
        assert value[f"goal_from_cube.{axis}"] == pytest.approx(value[f"goal.{axis}"] - value[f"cube.{axis}"], abs=1e-6)
    assert value["cube.sin4yaw"] ** 2 + value["cube.cos4yaw"] ** 2 == pytest.approx(1.0, abs=1e-5)
    assert value["cube.z"] == pytest.approx(0.02)
    assert value["gripper.width"] == pytest.approx(0.08)
    assert value["gripper.command"] == 1.0
    assert abs(value["ee.roll"]) < 0.2


@pytest.mark.parametrize("axis", range(3))
def test_a_delta_moves_the_hand_by_metres_along_its_axis(env: PickPlace, axis: int) -> None:
    before = env.reset(seed=0)[0]["state"][:3]
    action = STILL.copy()
    action[axis] = -0.02
    env.step(action)
    after = env.step(STILL)[0]["state"][:3]
    expected = np.zeros(3)
    expected[axis] = -0.02
    if axis == 2:  # the hand starts above the ceiling of the workspace and is brought down to it first
        assert after[2] < before[2] - 0.015
    else:
        np.testing.assert_allclose((after - before)[:2], expected[:2], atol=0.004)


@pytest.mark.parametrize("axis", [3, 4, 5])
def test_a_rotation_turns_the_hand_by_radians(env: PickPlace, axis: int) -> None:
    before = env.reset(seed=0)[0]["state"][axis]
    action = STILL.copy()
    action[axis] = 0.1
    env.step(action)
    for _ in range(3):
        after = env.step(STILL)[0]["state"][axis]
    assert after - before == pytest.approx(0.1, abs=0.01)


def test_actions_outside_the_bounds_are_clipped(env: PickPlace) -> None:
    env.reset(seed=0)
    far, _, _, _, _ = env.step(np.array([9, -9, 9, 9, -9, 9, 9], np.float32))
    env.reset(seed=0)
    edge, _, _, _, _ = env.step(np.where([1, 0, 1, 1, 0, 1, 1], PANDA_ACTION.high, PANDA_ACTION.low))
    np.testing.assert_array_equal(far["state"], edge["state"])


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.zeros(6, np.float32), r"action: got shape \(6,\), expected .*A=7"),
        (np.zeros((1, 7), np.float32), r"got shape \(1, 7\)"),
        (np.array([0, np.nan, 0, 0, 0, 0, 1], np.float32), "'dy'.*not finite"),
    ],
)
def test_bad_actions_are_refused_and_nothing_moves(env: PickPlace, action: np.ndarray, message: str) -> None:
    before, _ = env.reset(seed=0)
    with pytest.raises(SpecError, match=message):
        env.step(action)
    np.testing.assert_array_equal(env.observe()["state"], before["state"])


def test_horizon_truncates_and_then_asks_for_a_reset() -> None:
    env = PickPlace(horizon=3)
    env.reset(seed=0)
    ends = [env.step(STILL)[2:4] for _ in range(3)]
    assert ends == [(False, False), (False, False), (False, True)]
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(STILL)
    env.close()


def test_images_only_on_request_and_of_the_asked_size() -> None:
    env = PickPlace(images=("front", "wrist"), image_size=48)
    one, _ = env.reset(seed=1)
    two, _ = env.reset(seed=2)
    for view in ("front", "wrist"):
        assert one[view].shape == (48, 48, 3)
        assert one[view].dtype == np.uint8
        assert (one[view] != two[view]).any(axis=-1).sum() > 20  # other cube, other disc
    assert (one["front"] != one["wrist"]).any()
    env.robot_spec.observation.validate_frame(one)
    env.close()


def test_picture_shows_cube_disc_and_arm() -> None:
    env = PickPlace(render_mode="rgb_array", render_size=120)
    env.reset(seed=1)
    picture = env.render()
    assert picture is not None
    assert picture.shape == (120, 120, 3)
    red, green, blue = np.moveaxis(picture.astype(int), -1, 0)
    assert (red > green + 60).sum() > 10  # the cube
    assert (green > red + 60).sum() > 20  # the disc
    assert ((np.ptp(picture, axis=-1) < 12) & (blue > 120) & (blue < 250)).sum() > 100  # the arm
    env.close()


def test_without_render_mode_there_is_no_picture(env: PickPlace) -> None:
    env.reset(seed=0)
    assert env.render() is None


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"images": ("top",)}, "images names.*top.*expected some of.*front"),
        ({"horizon": 0}, "horizon is 0"),
        ({"goal_tolerance_m": 0.0}, "goal_tolerance_m is 0"),
        ({"cube_mass_kg": -1.0}, "cube_mass_kg is -1"),
        ({"goal_box_m": ((0.6, 0.3), (0.4, 0.2))}, "goal_box_m is .*expected .*low x"),
        ({"goal_box_m": ((0.4, 0.2), (0.9, 0.3))}, "a corner is 0.95 m away"),
        ({"gripper_offset_m": (0.01, 0.0)}, "gripper_offset_m is .*expected x, y and z"),
        ({"render_mode": "human"}, "render_mode is 'human'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PickPlace(**kwargs)  # type: ignore[arg-type]  # wrong on purpose


def test_goals_lie_where_they_were_asked_for() -> None:
    env = PickPlace(goal_box_m=((0.45, 0.22), (0.55, 0.28)))
    for seed in range(20):
        observation, _ = env.reset(seed=seed)
        goal = observation["state"][[STATE_NAMES.index("goal.x"), STATE_NAMES.index("goal.y")]]
        assert (goal >= np.float32([0.45, 0.22])).all()
        assert (goal <= np.float32([0.55, 0.28])).all()
    env.close()


def test_an_offset_of_the_gripper_shows_in_what_the_arm_reports_and_nowhere_else(env: PickPlace) -> None:
    shifted = PickPlace(gripper_offset_m=(0.0, 0.01, 0.0))
    (true, _), (reported, _) = env.reset(seed=3), shifted.reset(seed=3)
    difference = reported["state"] - true["state"]
    ee = slice(STATE_NAMES.index("ee.x"), STATE_NAMES.index("ee.z") + 1)
    cube_from_ee = slice(STATE_NAMES.index("cube_from_ee.x"), STATE_NAMES.index("cube_from_ee.z") + 1)
    np.testing.assert_allclose(np.linalg.norm(difference[ee]), 0.01, atol=1e-6)
    np.testing.assert_allclose(difference[cube_from_ee], -difference[ee], atol=1e-6)
    difference[ee], difference[cube_from_ee] = 0.0, 0.0
    assert not difference.any()
    shifted.close()


def test_closing_twice_is_allowed() -> None:
    env = PickPlace()
    env.close()
    env.close()
