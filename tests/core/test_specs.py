"""Specs validate and generate; their messages name the entry, what came and what was expected. JSON is strict."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steer.action import ActionAxis
from steer.errors import SpecError
from steer.history import History
from steer.observation import Batch, ObservationSpec
from steer.robot import Frame, RobotSpec
from steer.serial import from_json, to_json
from steer.spec import ArraySpec
from tests.core.toys import ACTION, OBSERVATION, ROBOT

VECTOR = ArraySpec("state", "float32", (3,), ("ee.x", "ee.y", "ee.z"), low=-2.0, high=2.0)
IMAGE = ArraySpec("front", "uint8", (-1, -1, 3))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([0.0, 0.0, 0.0], "got list"),
        (np.zeros(3), "got dtype float64, expected float32"),
        (np.zeros(4, np.float32), r"got shape \(4,\), expected \(3\)"),
        (np.zeros((2, 3), np.float32), r"got shape \(2, 3\)"),
        (np.array([0, np.nan, 0], np.float32), r"ee\.y = nan is not finite"),
        (np.array([0, 0, np.inf], np.float32), r"ee\.z = inf is not finite"),
        (np.array([-3, 0, 0], np.float32), r"ee\.x = -3\.0 is below the lowest allowed -2\.0"),
        (np.array([0, 3, 0], np.float32), r"ee\.y = 3\.0 is above the highest allowed 2\.0"),
    ],
)
def test_a_wrong_vector_is_named(value, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        VECTOR.validate(value)


@given(st.integers(0, 2**32 - 1), st.integers(0, 3))
def test_generated_values_conform(seed: int, leading: int) -> None:
    rng = np.random.default_rng(seed)
    for spec in (VECTOR, IMAGE, ArraySpec("flag", "bool", ())):
        spec.validate(spec.generate(rng, (2,) * leading), leading=leading)


def test_an_image_of_any_size_fits_a_free_axis_but_not_other_channels() -> None:
    IMAGE.validate(np.zeros((4, 6, 3), np.uint8))
    with pytest.raises(SpecError, match=r"expected \(any, any, 3\)"):
        IMAGE.validate(np.zeros((4, 6, 4), np.uint8))


def test_actions_out_of_bounds_name_the_axis() -> None:
    with pytest.raises(SpecError, match=r"axis 'dy' = 1\.5 m, expected \[-1\.0, 1\.0\]"):
        ACTION.validate(np.array([[0, 1.5]], np.float32))
    with pytest.raises(SpecError, match=r"axis 'dx' at .* is not finite"):
        ACTION.validate(np.array([[np.nan, 0]], np.float32))


def test_clipping_counts_and_keeps_nan() -> None:
    clipped, moved = ACTION.clip(np.array([[2.0, np.nan]], np.float32))
    assert clipped[0, 0] == 1.0
    assert np.isnan(clipped[0, 1])
    assert moved.tolist() == [[True, False]]


@pytest.mark.parametrize("bounds", [(1.0, 1.0), (1.0, 0.0), (float("nan"), 1.0), (0.0, float("inf"))])
def test_bounds_must_be_an_interval(bounds: tuple[float, float]) -> None:
    with pytest.raises(SpecError, match="finite interval"):
        ActionAxis("dx", "m", *bounds)


def test_observations_that_cannot_feed_a_model_are_listed() -> None:
    given_ = ObservationSpec((ArraySpec("state", "float64", (2,), ("a", "b")),))
    problems = OBSERVATION.differences(given_)
    assert len(problems) == 2
    assert OBSERVATION.differences(ObservationSpec(())) == ["observation 'state' is wanted, but only [] are given"]
    assert OBSERVATION.differences(OBSERVATION) == []


@pytest.mark.parametrize(
    ("shape", "mask", "words"),
    [((2, 1, 2), (2, 1), "mask"), ((3, 2, 2), (2, 2), "state"), ((2, 2, 3), (2, 2), "state")],
)
def test_a_batch_is_checked_like_its_observations(shape: tuple[int, ...], mask: tuple[int, ...], words: str) -> None:
    spec = replace(OBSERVATION, window=2)
    spec.validate_batch(Batch({"state": np.zeros((2, 2, 2), np.float32)}, np.ones((2, 2), np.bool_)))
    with pytest.raises(SpecError, match=f"^{words}: got"):
        spec.validate_batch(Batch({"state": np.zeros(shape, np.float32)}, np.ones(mask, np.bool_)))


def test_specs_survive_json() -> None:
    assert from_json(RobotSpec, to_json(ROBOT), "robot") == ROBOT


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"surprise": 1}, "surprise"),
        ({"name": 3}, "expected str"),
        ({"hold": "sideways"}, "hold"),
        ({"max_step": ["a", "b"]}, "expected float"),
    ],
)
def test_json_that_does_not_fit_is_named(change: dict, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        from_json(RobotSpec, to_json(ROBOT) | change, "robot.json")


def test_json_that_lacks_a_field_is_named() -> None:
    data = to_json(ROBOT)
    del data["action"]
    with pytest.raises(SpecError, match=r"robot\.json: RobotSpec lacks \['action'\]"):
        from_json(RobotSpec, data, "robot.json")


def test_holding_keeps_the_gripper_and_zeroes_the_rest() -> None:
    robot = replace(ROBOT, keep=("dy",))
    last = np.array([0.4, 0.7], np.float32)
    assert np.array_equal(robot.hold_action(last), np.array([0.0, 0.7], np.float32))
    assert np.array_equal(replace(robot, hold="repeat").hold_action(last), last)
    assert np.array_equal(robot.hold_action(None), np.zeros(2, np.float32))
    assert replace(robot, hold="repeat").hold_action(None) is None


def test_an_absolute_robot_must_not_hold_by_zeros() -> None:
    with pytest.raises(SpecError, match="holding would send it to zero: set hold to 'repeat'"):
        replace(ROBOT, action=replace(ACTION, kind="absolute"))


def test_history_pads_with_the_oldest_and_says_so() -> None:
    history = History(replace(OBSERVATION, window=3))
    with pytest.raises(SpecError, match="no frame yet"):
        history.observation()
    for x in (1.0, 2.0):
        history.push(Frame({"state": np.array([x, 0], np.float32)}, time_s=x))
    seen = history.observation()
    assert seen.arrays["state"][:, 0].tolist() == [1.0, 1.0, 2.0]
    assert seen.mask.tolist() == [False, True, True]
    assert seen.time_s == 2.0
