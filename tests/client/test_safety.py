"""Safety: what reaches the robot."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steer.client.safety import SafetyFilter
from steer.errors import SpecError
from tests.fakes import ROBOT

LIMITED = replace(ROBOT, max_step=(0.05, 0.05, 0.01))


def action(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_a_good_action_passes_unchanged() -> None:
    safety = SafetyFilter(ROBOT)
    np.testing.assert_array_equal(safety.check(action(0.1, -0.1, 0.0)), action(0.1, -0.1, 0.0))
    assert not any(safety.counts.values())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_never_sent(bad: float) -> None:
    safety = SafetyFilter(ROBOT)
    np.testing.assert_array_equal(safety.check(action(0.1, bad, 0.0)), action(0, 0, 0))
    assert safety.counts["not finite"] == 1


def test_bounds_hold() -> None:
    safety = SafetyFilter(ROBOT)
    np.testing.assert_array_equal(safety.check(action(5, -5, 0)), action(0.1, -0.1, 0))
    assert safety.counts["out of bounds"] == 1


def test_the_largest_step_is_relative_to_what_was_really_sent() -> None:
    safety = SafetyFilter(LIMITED)
    np.testing.assert_allclose(safety.check(action(0.1, 0, 0.1)), action(0.05, 0, 0.01))
    safety.sent(action(0.02, 0, 0))  # the driver sent less
    np.testing.assert_allclose(safety.check(action(0.1, 0, 0)), action(0.07, 0, 0))
    assert safety.counts["large step"] == 2


def test_nothing_to_send_means_hold_and_keeps_what_the_robot_keeps() -> None:
    safety = SafetyFilter(replace(ROBOT, keep=("dz",)))
    safety.sent(action(0.1, 0.1, 0.1))
    np.testing.assert_array_equal(safety.check(None), action(0, 0, 0.1))
    assert safety.counts["held"] == 1


def test_standing_still_is_not_slowed_down_by_the_largest_step() -> None:
    safety = SafetyFilter(LIMITED)
    safety.sent(action(0.1, 0.1, 0.1))
    np.testing.assert_array_equal(safety.check(None), action(0, 0, 0))


def test_an_absolute_robot_holds_by_repeating() -> None:
    safety = SafetyFilter(replace(ROBOT, hold="repeat", max_step=(0.01,) * 3))
    assert safety.check(None) is None
    np.testing.assert_allclose(safety.check(action(0.03, 0.02, 0.01)), action(0.03, 0.02, 0.01))
    safety.sent(action(0.03, 0.02, 0.01))
    np.testing.assert_array_equal(safety.check(None), action(0.03, 0.02, 0.01))


def test_an_action_of_another_size_is_an_error() -> None:
    with pytest.raises(SpecError, match=r"got shape \(2,\)"):
        SafetyFilter(ROBOT).check(action(0, 0))


@given(st.lists(st.none() | hnp.arrays(np.float32, 3, elements=st.floats(width=32)), max_size=20))
def test_whatever_is_proposed_every_command_is_finite_in_bounds_and_near_the_last(proposed: list) -> None:
    safety = SafetyFilter(LIMITED)
    last = safety.hold()
    for values in proposed:
        moved = values is not None and bool(np.isfinite(values).all())
        command = safety.check(values)
        LIMITED.action.validate(command)
        if moved:
            assert (np.abs(command - last) <= np.array(LIMITED.max_step) + 1e-6).all()
        safety.sent(command)
        last = command
