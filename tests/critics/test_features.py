"""What the critic sees: reached poses computed by hand, differentiable, and refused by name where they make no sense."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from critics.features import Raw, ReachedPoses, Scene, make_features
from steer.action import ActionAxis
from steer.errors import ConfigError
from steer.spec import ArraySpec
from tests.critics.toys import ACTION, STATE

# Per candidate: 5 axes x 4 steps, then per time 3 + 3 (cube) + 2 (goal), then the heading.
RAW_SIZE = 4 * 5


def state(**entries: float) -> torch.Tensor:
    row = torch.zeros(1, STATE.shape[0])
    for name, value in entries.items():
        row[0, STATE.index(name.replace("_", "."))] = value
    return row


def chunk(dx: float = 0.0, dy: float = 0.0, dyaw: float = 0.0) -> torch.Tensor:
    actions = torch.zeros(1, 1, 4, ACTION.size)
    actions[..., 0], actions[..., 1], actions[..., 3] = dx, dy, dyaw
    return actions


def seen(features: torch.Tensor) -> dict[str, torch.Tensor]:
    """The parts after the raw numbers."""
    parts = features[0, 0, RAW_SIZE:].split([3, 3, 2, 3, 3, 2, 2])
    return dict(zip(("near_2", "far_2", "goal_2", "near_4", "far_4", "goal_4", "heading"), parts, strict=True))


def test_raw_numbers_span_minus_one_to_one() -> None:
    raw = Raw(ACTION, steps=4)
    low, high = torch.tensor(ACTION.low), torch.tensor(ACTION.high)
    actions = torch.stack([low, (low + high) / 2, high, high])[None, None]
    expected = torch.tensor([-1.0] * 5 + [0.0] * 5 + [1.0] * 10)
    torch.testing.assert_close(raw(state(), actions)[0, 0], expected)


def test_the_recipe_of_the_scene() -> None:
    features = ReachedPoses(STATE, ACTION, steps=4)
    assert (features.state_size, features.action_size) == (2, RAW_SIZE + 2 * (6 + 2) + 2)
    got = features(state(cube_x=0.1), chunk(dx=0.02))
    assert got.shape == (1, 1, features.action_size)


def test_half_way_and_at_the_end_the_cube_is_nearer() -> None:
    got = seen(ReachedPoses(STATE, ACTION, 4)(state(cube_x=0.1, goal_y=0.05), chunk(dx=0.02)))
    torch.testing.assert_close(got["near_2"], torch.tensor([np.tanh(0.06 / 0.02), 0, 0]).float())
    torch.testing.assert_close(got["far_2"], torch.tensor([np.tanh(0.06 / 0.05), 0, 0]).float())
    torch.testing.assert_close(got["near_4"], torch.tensor([np.tanh(0.02 / 0.02), 0, 0]).float())
    torch.testing.assert_close(got["goal_4"], torch.tensor([np.tanh(-0.08 / 0.03), np.tanh(0.05 / 0.03)]).float())


def test_a_turned_gripper_sees_the_cube_turned() -> None:
    """The cube is 2 cm ahead along x; a quarter turn to the left later it lies to the right, along -y."""
    got = seen(ReachedPoses(STATE, ACTION, 4)(state(cube_x=0.02), chunk(dyaw=np.pi / 8)))
    torch.testing.assert_close(got["near_4"], torch.tensor([0.0, np.tanh(-1.0), 0.0]).float(), atol=1e-6, rtol=0)
    # Points of the plane stay in the world's frame.
    torch.testing.assert_close(got["goal_4"], torch.zeros(2))


def test_the_heading_is_counted_from_the_yaw_reached() -> None:
    cube_yaw, ee_yaw, turned = 0.3, 0.1, 4 * 0.02
    entries = {"cube_sin4yaw": np.sin(4 * cube_yaw), "cube_cos4yaw": np.cos(4 * cube_yaw), "ee_yaw": ee_yaw}
    got = seen(ReachedPoses(STATE, ACTION, 4)(state(**entries), chunk(dyaw=0.02)))
    left = 4 * (cube_yaw - ee_yaw - turned)
    torch.testing.assert_close(got["heading"], torch.tensor([np.sin(left), np.cos(left)]).float(), atol=1e-6, rtol=0)


def test_now_is_in_the_gripper_frame_and_needs_no_action() -> None:
    features = ReachedPoses(STATE, ACTION, 4)
    got = features.of_state(state(cube_x=0.02, ee_yaw=np.pi / 2))
    torch.testing.assert_close(got, torch.tensor([[0.0, np.tanh(-1.0)]]).float(), atol=1e-6, rtol=0)


def test_actions_get_gradients_that_agree_with_differences() -> None:
    features = ReachedPoses(STATE, ACTION, 4).double()
    where = state(cube_x=0.03, cube_y=0.01, goal_x=0.05, cube_sin4yaw=0.6, cube_cos4yaw=0.8).double()
    actions = torch.full((1, 1, 4, ACTION.size), 0.003, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a: features(where, a), actions, atol=1e-4)


@pytest.mark.parametrize(("steps", "times"), [(1, [1]), (2, [1, 2]), (4, [2, 4]), (5, [3, 5])])
def test_times_are_half_and_full_prefix(steps: int, times: list[int]) -> None:
    features = ReachedPoses(STATE, ACTION, steps)
    assert features.times == times
    got = features(state().expand(3, -1), torch.zeros(3, 2, steps, ACTION.size))
    assert got.shape == (3, 2, features.action_size)


def test_scene_leaves_out_displacements_and_finds_folds() -> None:
    names = ("ee.x", "ee.y", "ee.z", "ee.yaw", "nut.x", "nut.y", "nut.z", "nut.sin6yaw", "nut.cos6yaw", "peg.sinyaw")
    spec = ArraySpec("state", "float32", (12,), (*names, "nut_from_ee.x", "nut_from_ee.y"))
    scene = Scene.parse(spec)
    assert scene.points == ((4, 5, 6),)
    assert scene.planar == ()
    assert [(h.sin, h.cos, h.fold) for h in scene.headings] == [(7, 8, 6)]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("ee.x", "ee.y", "ee.z", "cube.x", "cube.y"), r"no entries \['ee.yaw'\]"),
        (("ee.x", "ee.y", "ee.z", "ee.yaw", "cube_from_ee.x"), "where an object is"),
        ((), "no names"),
    ],
)
def test_states_without_the_names_are_refused(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_features("reached_poses", ArraySpec("state", "float32", (5,), names), ACTION, 4)


def test_actions_that_are_no_deltas_are_refused() -> None:
    for wrong in (replace(ACTION, kind="absolute"), replace(ACTION, frame="tool")):
        with pytest.raises(ConfigError, match="expected 'delta' in a fixed frame"):
            make_features("reached_poses", STATE, wrong, 4)
    joints = replace(ACTION, axes=(ActionAxis("joint1", "rad", -1, 1),))
    with pytest.raises(ConfigError, match="dx in m"):
        make_features("reached_poses", STATE, joints, 4)
    assert isinstance(make_features("raw", STATE, joints, 4), Raw)
