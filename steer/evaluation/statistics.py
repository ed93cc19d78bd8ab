"""Intervals and tests for success rates, single and paired.

Contract: pure functions of counts or boolean arrays; every interval contains its estimate and lies within its range.
Wilson's interval and the exact binomial test come from scipy; the paired score interval, which neither scipy nor
numpy has, is written here from its paper.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool
from scipy.optimize import brentq
from scipy.stats import binomtest, norm

from steer.errors import ConfigError


class Estimate(NamedTuple):
    """A value with its confidence interval; unpacks as (value, low, high)."""

    value: float
    low: float
    high: float


class Discordance(NamedTuple):
    """The pairs that differ: `gained` succeed only when steered, `lost` only with the base."""

    gained: int
    lost: int


def wilson(successes: int, n: int, confidence: float = 0.95) -> Estimate:
    """Wilson's score interval of one success rate (Wilson 1927). Raises `ConfigError` for impossible counts."""
    if not 0 <= successes <= n or n < 1:
        raise ConfigError(
            f"{successes} successes of {n} episodes: expected 0 <= successes <= episodes and at least 1 episode"
        )
    interval = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return Estimate(successes / n, float(interval.low), float(interval.high))


def discordance(
    base: Bool[np.ndarray, " n"] | Sequence[bool], steered: Bool[np.ndarray, " n"] | Sequence[bool]
) -> Discordance:
    """Count the pairs that differ. Raises `ConfigError` unless both sides have the same, positive number of episodes."""
    base, steered = np.asarray(base, np.bool_), np.asarray(steered, np.bool_)
    if base.shape != steered.shape or base.ndim != 1 or not base.size:
        raise ConfigError(
            f"paired outcomes have shapes {base.shape} and {steered.shape}: give one outcome per pair on both sides"
        )
    return Discordance(gained=int((steered & ~base).sum()), lost=int((base & ~steered).sum()))


def paired_difference(
    base: Bool[np.ndarray, " n"] | Sequence[bool],
    steered: Bool[np.ndarray, " n"] | Sequence[bool],
    confidence: float = 0.95,
) -> Estimate:
    """Steered success minus base success on the same starts, with Tango's paired score interval."""
    gained, lost = discordance(base, steered)
    return tango(gained, lost, len(base), confidence)


def tango(gained: int, lost: int, n: int, confidence: float = 0.95) -> Estimate:
    """Score interval of (gained - lost) / n over n pairs.

    Source: Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample
    design", Statistics in Medicine 17 (1998), 891-908: the differences whose score test is not rejected. Unlike Wald's
    interval it keeps its coverage with few discordant pairs and at rates near 0 and 1.
    """
    if min(gained, lost) < 0 or gained + lost > n or n < 1:
        raise ConfigError(f"{gained} gained and {lost} lost of {n} pairs: expected counts of at most {n} together")
    z = float(norm.ppf(0.5 + confidence / 2))
    estimate = (gained - lost) / n

    def statistic(difference: float) -> float:
        return _score(gained, lost, n, difference)

    low = _crossing(lambda difference: statistic(difference) - z, -1.0, estimate)
    high = _crossing(lambda difference: statistic(difference) + z, estimate, 1.0)
    return Estimate(estimate, min(low, estimate), max(high, estimate))


def mcnemar_exact(
    base: Bool[np.ndarray, " n"] | Sequence[bool], steered: Bool[np.ndarray, " n"] | Sequence[bool]
) -> float:
    """Two-sided exact p of "steering changes nothing": discordant pairs fall either way with probability one half."""
    gained, lost = discordance(base, steered)
    return 1.0 if gained + lost == 0 else float(binomtest(gained, gained + lost, 0.5).pvalue)


def _score(gained: int, lost: int, n: int, difference: float) -> float:
    """Tango's test statistic for a true difference, with the constrained estimate of P(lost) (his equation 4)."""
    a = 2.0 * n
    b = -gained - lost + (2.0 * n - gained + lost) * difference
    c = -lost * difference * (1.0 - difference)
    p_lost = (np.sqrt(max(b * b - 4.0 * a * c, 0.0)) - b) / (2.0 * a)
    variance = n * (2.0 * p_lost + difference * (1.0 - difference))
    numerator = gained - lost - n * difference
    # At a difference of +-1 the variance vanishes: the test then rejects everything but that very difference.
    if variance <= 1e-12 * n:
        return 0.0 if abs(numerator) <= 1e-9 * n else float(np.copysign(np.inf, numerator))
    return float(numerator / np.sqrt(variance))


def _crossing(function: Callable[[float], float], low: float, high: float) -> float:
    """Where the decreasing `function` crosses zero within [low, high]; the nearer end where it does not."""
    at_low, at_high = function(low), function(high)
    if at_low <= 0.0:
        return low
    if at_high >= 0.0:
        return high
    # brentq interpolates, so infinite ends are replaced by finite ones of the same sign.
    return float(brentq(lambda x: float(np.clip(function(x), -1e6, 1e6)), low, high, xtol=1e-10))
