"""`CostModel`: what deciding over so many candidates costs on this machine, measured while serving."""

from __future__ import annotations

import numpy as np

_SMOOTHING = 0.3
# Measured costs scatter; a plan that just fits would be late half of the time.
_MARGIN = 1.2


class CostModel:
    """A running mean of seconds per number of candidates in a batch; what was not measured is interpolated."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}

    def observe(self, candidates: int, seconds: float) -> None:
        """A decision over so many candidates (all requests of the batch together) took so long."""
        before = self._seconds.get(candidates, seconds)
        self._seconds[candidates] = before + _SMOOTHING * (seconds - before)

    def estimate(self, candidates: int) -> float:
        """Expected seconds; 0 while nothing was measured. Above the largest measured number it grows in proportion."""
        if not self._seconds:
            return 0.0
        known = sorted(self._seconds)
        if candidates > known[-1]:
            return self._seconds[known[-1]] * candidates / known[-1]
        return float(np.interp(candidates, known, [self._seconds[n] for n in known]))

    def affordable(self, wanted: int, left_s: float) -> int:
        """The most candidates of `wanted`, `wanted` / 2, ... that fit into `left_s`; at least 1, the policy alone."""
        candidates = wanted
        while candidates > 1 and self.estimate(candidates) * _MARGIN > left_s:
            candidates //= 2
        return candidates

    def forget(self, candidates: int) -> None:
        """What was measured for so many candidates says nothing (it included a first time)."""
        self._seconds.pop(candidates, None)
