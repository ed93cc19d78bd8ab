"""Proposals of two policies side by side."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from steer.errors import SpecError
from steer.observation import Batch
from steer.online.union import UnionPolicy
from steer.spec import Array
from tests.fakes import FakePolicy


class Constant(FakePolicy):
    """Every candidate is one number, so that it can be told whose it is; it notes how many were asked for."""

    def __init__(self, value: float, **changes: Any) -> None:
        super().__init__(**changes)
        self.value, self.version, self.asked = value, f"constant-{value}", 0

    def sample(
        self, context: Array, num_samples: int, seeds: Array, temperature: float = 1.0, committed: Array | None = None
    ) -> Array:
        self.asked = num_samples
        return np.full((len(seeds), num_samples, 4, 3), self.value, np.float32)


def observed(rows: int = 2, window: int = 2) -> Batch:
    return Batch({"state": np.zeros((rows, window, 3), np.float32)}, np.ones((rows, window), np.bool_))


def sample(policy: Any, count: int, window: int = 2) -> Array:
    context = policy.encode(observed(window=window))
    samples: Array = policy.sample(context, count, np.array([3, 4]))
    return samples


def test_candidate_zero_is_the_students_and_both_take_turns() -> None:
    union = UnionPolicy(Constant(0.01), Constant(0.02), 8, 8)
    assert sample(union, 4)[0, :, 0, 0].tolist() == pytest.approx([0.01, 0.02, 0.01, 0.02])
    assert union.version == "constant-0.01+constant-0.02"


@pytest.mark.parametrize(("student", "base"), [(8, 8), (4, 8), (8, 2), (1, 3)])
def test_a_whole_cycle_has_as_many_of_each_as_asked_for(student: int, base: int) -> None:
    whose = sample(UnionPolicy(Constant(0.01), Constant(0.02), student, base), student + base)[0, :, 0, 0]
    assert (whose < 0.015).sum() == student
    assert whose[0] < 0.015


def test_fewer_candidates_are_a_prefix_of_more() -> None:
    union = UnionPolicy(FakePolicy(), FakePolicy(), 2, 1)
    np.testing.assert_array_equal(sample(union, 9)[:, :4], sample(union, 4))


def test_the_two_do_not_start_from_the_same_noise() -> None:
    samples = sample(UnionPolicy(FakePolicy(), FakePolicy()), 2)
    assert not np.allclose(samples[:, 0], samples[:, 1])
    np.testing.assert_array_equal(samples[:, 0], sample(FakePolicy(), 1)[:, 0])


def test_a_policy_that_is_not_due_is_not_asked() -> None:
    base = Constant(0.02)
    sample(UnionPolicy(Constant(0.01), base), 1)
    assert base.asked == 0


def test_each_sees_its_own_window() -> None:
    union = UnionPolicy(FakePolicy(window=1), FakePolicy(window=2))
    assert union.spec.observation.window == 2
    sample(union, 2)


def test_policies_that_do_not_agree_are_refused() -> None:
    other = FakePolicy()
    other.spec = replace(other.spec, horizon=8)
    with pytest.raises(SpecError, match="horizons 4 and 8"):
        UnionPolicy(FakePolicy(), other)
    with pytest.raises(SpecError, match="at least 1"):
        UnionPolicy(FakePolicy(), FakePolicy(), 0, 4)
