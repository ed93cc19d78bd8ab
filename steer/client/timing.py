"""`TickStatistics`: how well the control loop keeps its deadlines."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass

import numpy as np

LATE_S = 0.005
"""A tick that starts more than this after its deadline counts as late."""


@dataclass(frozen=True)
class TickErrors:
    """Start minus deadline over all ticks, in milliseconds; `late` is a share, `skipped` counts deadlines passed over."""

    ticks: int
    late: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    skipped: int


class TickStatistics:
    """Collects one number per tick."""

    def __init__(self) -> None:
        self._errors_s = array("d")
        self.skipped = 0

    def add(self, error_s: float) -> None:
        self._errors_s.append(error_s)

    def extend(self, other: TickStatistics) -> None:
        """Take over all ticks of another loop."""
        self._errors_s.extend(other._errors_s)
        self.skipped += other.skipped

    def summary(self) -> TickErrors:
        # A copy: the loop may append while another thread asks.
        errors = np.array(self._errors_s[:])
        if not errors.size:
            return TickErrors(0, 0.0, 0.0, 0.0, 0.0, 0.0, self.skipped)
        p50, p99, p999, highest = (1e3 * float(np.percentile(errors, q)) for q in (50, 99, 99.9, 100))
        return TickErrors(len(errors), float((errors > LATE_S).mean()), p50, p99, p999, highest, self.skipped)


class Deadlines:
    """Absolute deadlines at a fixed rate: tick i is due at start + i * period, so errors never add up."""

    def __init__(self, start: float, period_s: float) -> None:
        self._start = start
        self._period_s = period_s
        self._index = 0

    @property
    def due(self) -> float:
        """When the present tick is due."""
        return self._start + self._index * self._period_s

    def advance(self, now: float) -> int:
        """Go on to the next deadline; returns how many were passed over.

        A deadline that is past by more than half a period is skipped rather than made up for: commands in quick succession
        would move the robot faster than its control rate.
        """
        self._index += 1
        skipped = max(0, math.floor((now - self.due) / self._period_s + 0.5))
        self._index += skipped
        return skipped
