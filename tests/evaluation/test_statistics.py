"""Success-rate statistics against published worked examples, and as properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steer.errors import ConfigError
from steer.evaluation.statistics import Estimate, discordance, mcnemar_exact, paired_difference, tango, wilson


def pairs(both: int, gained: int, lost: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    base = np.repeat([True, False, True, False], [both, gained, lost, neither])
    steered = np.repeat([True, True, False, False], [both, gained, lost, neither])
    return base, steered


@st.composite
def tables(draw: st.DrawFn) -> tuple[int, int, int]:
    n = draw(st.integers(1, 500))
    gained = draw(st.integers(0, n))
    return gained, draw(st.integers(0, n - gained)), n


def test_wilson_matches_newcombes_published_examples() -> None:
    # Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3.
    assert wilson(81, 263) == pytest.approx((81 / 263, 0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((15 / 148, 0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.0, 0.1611), abs=5e-5)
    assert wilson(1, 29) == pytest.approx((1 / 29, 0.0061, 0.1718), abs=5e-5)


def test_paired_interval_matches_the_airway_example() -> None:
    # Fagerland, Lydersen & Laake, Statistics in Medicine 33 (2014) 2850-2875: 21 children before and after a transplant.
    base, steered = pairs(both=1, gained=1, lost=7, neither=12)
    assert paired_difference(base, steered) == pytest.approx((-0.286, -0.517, -0.026), abs=5e-4)
    assert mcnemar_exact(base, steered) == pytest.approx(0.0703, abs=5e-5)


def test_paired_interval_matches_the_consolidation_example() -> None:
    # The same paper's second example: 161 patients before and after consolidation therapy.
    base, steered = pairs(both=59, gained=6, lost=16, neither=80)
    assert paired_difference(base, steered) == pytest.approx((-0.062, -0.124, -0.005), abs=5e-4)
    assert mcnemar_exact(base, steered) == pytest.approx(0.0525, abs=5e-5)


def test_all_gained_ends_at_one() -> None:
    estimate = tango(10, 0, 10)
    assert estimate.value == estimate.high == 1.0
    # n (1 - d) = z^2 (1 + d), solved for d.
    assert estimate.low == pytest.approx((10 - 1.959964**2) / (10 + 1.959964**2), abs=1e-6)


def test_equal_outcomes_leave_the_width_of_ignorance() -> None:
    value, low, high = paired_difference([True] * 40, [True] * 40)
    assert value == 0.0
    assert low == pytest.approx(-high)
    # With no discordant pair the score bound is z^2 / (n + z^2).
    assert high == pytest.approx(1.959964**2 / (40 + 1.959964**2), abs=1e-6)
    assert mcnemar_exact([True] * 40, [True] * 40) == 1.0


@given(tables())
def test_the_paired_interval_contains_its_estimate(table: tuple[int, int, int]) -> None:
    value, low, high = tango(*table)
    assert -1.0 <= low <= value <= high <= 1.0


@given(tables())
def test_the_iteration_agrees_with_the_closed_form(table: tuple[int, int, int]) -> None:
    """Both bounds are roots of the quartic of Yang, Sun & Hardin, Statistics in Medicine 32 (2013) 1336-1342."""
    gained, lost, n = table
    d, g = gained - lost, 1.959963984540054**2
    quartic = np.poly1d(
        [
            n**2 * (n / g + 1) ** 2,
            -n * d * (n / g + 1) * (4 * n / g + 1),
            2 * n * d**2 * (3 * n / g + 2) / g - n**2 * ((gained + lost) / g + 1),
            n * d * (2 * (gained + lost) / g + 1) - d**3 * (4 * n / g + 1) / g,
            d**2 * (d**2 / g - (gained + lost)) / g,
        ]
    )
    _, low, high = tango(gained, lost, n)
    scale = float(np.abs(quartic.coeffs).max())
    assert quartic(low) / scale == pytest.approx(0.0, abs=1e-7)
    assert quartic(high) / scale == pytest.approx(0.0, abs=1e-7)


@given(tables())
def test_swapping_the_sides_mirrors_the_interval(table: tuple[int, int, int]) -> None:
    gained, lost, n = table
    forward, backward = tango(gained, lost, n), tango(lost, gained, n)
    assert backward == pytest.approx(Estimate(-forward.value, -forward.high, -forward.low), abs=1e-7)


@given(tables())
def test_a_wider_confidence_contains_the_narrower(table: tuple[int, int, int]) -> None:
    narrow, wide = tango(*table, confidence=0.8), tango(*table, confidence=0.99)
    assert wide.low <= narrow.low + 1e-9
    assert narrow.high <= wide.high + 1e-9


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_contains_its_estimate(counts: tuple[int, int]) -> None:
    value, low, high = wilson(*counts)
    assert 0.0 <= low <= value + 1e-12
    assert value - 1e-12 <= high <= 1.0


@settings(max_examples=4, deadline=None)
@given(st.sampled_from([(0.3, 0.05), (0.4, 0.1), (0.1, 0.1), (0.05, 0.01)]))
def test_the_paired_interval_covers_the_truth(rates: tuple[float, float]) -> None:
    """The 95 % interval of 100 pairs covers the true difference in 93 to 98 % of simulated evaluations."""
    rng = np.random.default_rng(7)
    gained_rate, lost_rate = rates
    drawn = rng.multinomial(100, [gained_rate, lost_rate, 1 - gained_rate - lost_rate], size=1500)
    truth = gained_rate - lost_rate
    known: dict[tuple[int, int], bool] = {}
    for gained, lost, _ in drawn.tolist():
        if (gained, lost) not in known:
            _, low, high = tango(gained, lost, 100)
            known[gained, lost] = low <= truth <= high
    covered = np.mean([known[gained, lost] for gained, lost, _ in drawn.tolist()])
    assert 0.93 <= covered <= 0.98


def test_discordance_counts_each_direction() -> None:
    assert discordance([True, False, False, True], [True, True, True, False]) == (2, 1)


@pytest.mark.parametrize(("base", "steered"), [([True], [True, False]), ([], [])])
def test_unpaired_outcomes_are_refused(base: list[bool], steered: list[bool]) -> None:
    with pytest.raises(ConfigError, match="one outcome per pair"):
        paired_difference(base, steered)


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ConfigError, match="3 successes of 2"):
        wilson(3, 2)
    with pytest.raises(ConfigError, match="at most 4"):
        tango(3, 2, 4)
