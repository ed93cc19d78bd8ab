"""Deadlines are absolute: errors do not add up, and an overrun is not made up for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steer.client.timing import Deadlines, TickStatistics


def test_deadlines_do_not_drift_however_late_the_ticks_are() -> None:
    deadlines = Deadlines(start=10.0, period_s=0.05)
    for _ in range(1000):
        deadlines.advance(deadlines.due + 0.02)
    assert deadlines.due == pytest.approx(10.0 + 1000 * 0.05)


@pytest.mark.parametrize(("late_s", "skipped"), [(0.0, 0), (0.06, 0), (0.08, 1), (0.1, 1), (0.13, 2)])
def test_deadlines_past_by_more_than_half_a_period_are_skipped(late_s: float, skipped: int) -> None:
    deadlines = Deadlines(start=0.0, period_s=0.05)
    assert deadlines.advance(late_s) == skipped
    assert deadlines.due == pytest.approx(0.05 * (1 + skipped))


@given(st.lists(st.floats(0, 0.5), max_size=30))
def test_commands_never_follow_each_other_faster_than_half_a_period(lasts_s: list[float]) -> None:
    deadlines, now = Deadlines(0.0, 0.05), 0.0
    for last_s in lasts_s:
        began = now
        now += last_s
        deadlines.advance(now)
        now = max(now, deadlines.due)
        assert now - began >= 0.025 - 1e-9


def test_statistics() -> None:
    statistics = TickStatistics()
    for error_s in (0.001, 0.002, 0.003, 0.006):
        statistics.add(error_s)
    summary = statistics.summary()
    assert (summary.ticks, summary.late, summary.skipped) == (4, 0.25, 0)
    assert summary.p50_ms == pytest.approx(2.5)
    assert summary.max_ms == pytest.approx(6.0)


def test_nothing_yet() -> None:
    assert TickStatistics().summary().ticks == 0
