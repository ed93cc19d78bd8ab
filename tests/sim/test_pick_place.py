"""The task's rules on literal scenes, and the distribution of starts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robots.panda_arm import ArmPose
from sim.pick_place import BOX_HIGH_M, BOX_LOW_M, STATE_SPEC, CubePose, Scene, draw_start, state, succeeded

DONE = Scene(
    arm=ArmPose(np.array([0.5, 0.1, 0.12]), np.zeros(3), 0.08),
    cube=CubePose(np.array([0.5, 0.1, 0.02]), 0.3, 0.0),
    goal_xy_m=np.array([0.52, 0.12]),
    gripper_command=1.0,
)


def test_a_released_resting_cube_on_the_disc_is_success() -> None:
    assert succeeded(DONE, tolerance_m=0.06)


@pytest.mark.parametrize(
    "change",
    [
        {"goal_xy_m": np.array([0.56, 0.12])},  # 6.3 cm off
        {"cube": replace(DONE.cube, position_m=np.array([0.5, 0.1, 0.03]))},  # still in the air
        {"cube": replace(DONE.cube, speed_m_s=0.2)},  # still moving
        {"gripper_command": -1.0},
        {"arm": replace(DONE.arm, width_m=0.05)},  # still holding
        {"arm": replace(DONE.arm, position_m=np.array([0.5, 0.1, 0.04]))},  # hand not clear
    ],
    ids=["far", "high", "moving", "closed", "holding", "near"],
)
def test_each_condition_is_needed(change: dict[str, object]) -> None:
    assert not succeeded(replace(DONE, **change), tolerance_m=0.06)


def test_tolerance_is_in_metres() -> None:
    assert not succeeded(DONE, tolerance_m=0.02)  # it lies 2.8 cm off


@given(st.integers(0, 2**32 - 1))
def test_starts_lie_in_the_box_with_cube_and_goal_apart(seed: int) -> None:
    start = draw_start(np.random.default_rng(seed))
    for place in (start.cube_xy_m, start.goal_xy_m):
        assert (place >= BOX_LOW_M).all()
        assert (place <= BOX_HIGH_M).all()
    assert np.linalg.norm(start.cube_xy_m - start.goal_xy_m) >= 0.14
    assert abs(start.cube_yaw_rad) <= np.pi / 4


def test_a_quarter_turn_of_the_cube_changes_nothing_in_the_state() -> None:
    turned = replace(DONE, cube=replace(DONE.cube, yaw_rad=DONE.cube.yaw_rad + np.pi / 2))
    np.testing.assert_allclose(state(DONE), state(turned), atol=1e-6)


def test_a_cube_that_flew_away_stays_within_the_bounds_of_the_spec() -> None:
    STATE_SPEC.validate(state(replace(DONE, cube=replace(DONE.cube, position_m=np.array([99.0, 0.0, -99.0])))))
