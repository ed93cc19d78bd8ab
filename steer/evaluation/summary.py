"""From rollouts to figures: outcomes, latency per part, calibration of Q. Pure functions."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Bool

from steer.evaluation.result import CalibrationGroup, EpisodeResult, Latency, Rate
from steer.evaluation.rollout import DecisionRecord, Rollout
from steer.evaluation.statistics import wilson

_GROUPS = 10


def successes(rollouts: Sequence[Rollout]) -> Bool[np.ndarray, " n"]:
    """Which episodes succeeded, bool[N]."""
    return np.array([played.success for played in rollouts], np.bool_)


def rate(outcomes: Sequence[bool] | Bool[np.ndarray, " n"]) -> Rate:
    """The success rate with its Wilson interval."""
    estimate = wilson(int(np.sum(outcomes)), len(outcomes))
    return Rate(estimate.value, estimate.low, estimate.high, len(outcomes))


def episode_result(played: Rollout) -> EpisodeResult:
    """An episode without its data."""
    scored = [decision for decision in played.decisions if decision.scored]
    return EpisodeResult(
        seed=played.seed,
        success=played.success,
        total_return=played.total_return,
        length=played.length,
        steps=tuple(decision.step for decision in scored),
        values=tuple(round(float(decision.values[decision.chosen]), 6) for decision in scored),
    )


def latency(rollouts: Sequence[Rollout]) -> Mapping[str, Latency]:
    """Percentiles per part over all decisions; "wait" is the whole answer as the caller saw it."""
    parts: dict[str, list[float]] = defaultdict(list)
    for decision in _decisions(rollouts):
        for part, seconds in decision.timings_s.items():
            parts[part].append(seconds)
        parts["wait"].append(decision.wait_s)
    return {part: _percentiles(values) for part, values in parts.items()}


def cuts(rollouts: Sequence[Rollout]) -> Mapping[str, int]:
    """How often each thing could not be done in time."""
    return dict(Counter(cut for decision in _decisions(rollouts) for cut in decision.cuts))


def calibration(rollouts: Sequence[Rollout], gamma: float | None) -> tuple[CalibrationGroup, ...]:
    """Decisions in groups of equal size by the Q of what was chosen, against what came of them.

    The return-to-go is sum_j gamma^j r of the rest of the episode; at the time limit it counts as zero from there on.
    Decisions of one episode share their outcome, so each group's interval is narrower than it should be.
    """
    rows = [row for played in rollouts for row in _judged(played, gamma)]
    if len(rows) < _GROUPS:
        return ()
    rows.sort(key=lambda row: row[0])
    groups = np.array_split(np.asarray(rows, np.float64), _GROUPS)
    return tuple(
        CalibrationGroup(
            q=float(group[:, 0].mean()),
            success=rate(group[:, 1].astype(np.bool_)),
            return_to_go=None if gamma is None else float(group[:, 2].mean()),
        )
        for group in groups
    )


def _judged(played: Rollout, gamma: float | None) -> list[tuple[float, bool, float]]:
    """(Q, success, return-to-go) of each scored decision."""
    rewards = np.asarray(played.episode.rewards, np.float64)
    rows = []
    for decision in played.decisions:
        if decision.scored:
            rest = rewards[decision.step :]
            discounted = 0.0 if gamma is None else float(rest @ gamma ** np.arange(len(rest)))
            rows.append((float(decision.values[decision.chosen]), played.success, discounted))
    return rows


def _decisions(rollouts: Sequence[Rollout]) -> Iterable[DecisionRecord]:
    return (decision for played in rollouts for decision in played.decisions)


def _percentiles(values: Sequence[float]) -> Latency:
    p50, p99 = np.percentile(values, [50, 99])
    return Latency(float(p50), float(p99), len(values))
