"""Reducing over members and choosing a candidate."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from steer.errors import ConfigError
from steer.selection import Selection, choose, reduce_scores

SCORES = np.array([[1.0, 5.0, 3.0], [3.0, -1.0, 2.5]], np.float32)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("min", [1.0, -1.0, 2.5]), ("mean", [2.0, 2.0, 2.75]), ("lower_bound", [1.0, -1.0, 2.5])],
)
def test_reduction(rule: str, expected: list[float]) -> None:
    assert np.allclose(reduce_scores(SCORES, rule, bound=1.0), expected)


def test_ties_go_to_the_policys_own() -> None:
    assert choose(np.array([2.0, 2.0, 2.0]), Selection(), 0) == 0


@pytest.mark.parametrize(("margin", "chosen"), [(0.0, 2), (0.5, 2), (1.5, 0)])
def test_margin_abstains_unless_another_wins_clearly(margin: float, chosen: int) -> None:
    assert choose(np.array([1.0, 1.2, 2.0]), Selection(choose="margin", margin=margin), 0) == chosen


@given(arrays(np.float64, st.integers(1, 12), elements=st.floats(-1e3, 1e3)), st.integers(0, 2**62))
def test_every_rule_names_a_candidate_and_repeats_itself(values: np.ndarray, seed: int) -> None:
    for rule in ("argmax", "softmax", "margin", "first", "random"):
        selection = Selection(choose=rule)
        index = choose(values, selection, seed)
        assert 0 <= index < len(values)
        assert choose(values, selection, seed) == index


def test_softmax_draws_with_its_logits() -> None:
    values = np.array([0.0, 1.0])
    picks = [choose(values, Selection(choose="softmax", selection_temperature=0.5), seed) for seed in range(4000)]
    assert abs(np.mean(picks) - 1 / (1 + np.exp(-2.0))) < 0.02


@pytest.mark.parametrize(
    "wrong",
    [
        {"selection_temperature": 0.0},
        {"selection_temperature": float("nan")},
        {"margin": -1.0},
        {"margin": float("nan")},
        {"bound": float("nan")},
        {"bound": float("inf")},
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        Selection(**wrong)
