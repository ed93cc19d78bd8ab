"""Choosing K and the noise scale on seeds of their own, so that the evaluation's starts stay unseen.

Every setting is compared with the base at the same temperature: lowering the noise alone can lift a policy, and that is
not the critic's merit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from steer.errors import ConfigError
from steer.evaluation.result import Tuning, TuningPoint
from steer.evaluation.rollout import RolloutSettings
from steer.evaluation.runner import Job, Progress, Runner
from steer.evaluation.summary import successes
from steer.selection import Selection


@dataclass(frozen=True)
class TuningSettings:
    """The grid, and the seeds it is tried on."""

    episodes: int = 0
    """Starts per setting; 0 takes the given number of candidates and temperature as they are."""
    seed: int = 500_000
    """First tuning seed; the range must not meet the evaluation's."""
    samples: tuple[int, ...] = (4, 8, 16)
    """Numbers of candidates to try."""
    temperatures: tuple[float, ...] = (0.8, 1.0)
    """Noise scales to try, for base and steered alike."""
    criterion: Literal["steered", "difference"] = "steered"
    """What to maximise: steered success, or its paired difference to the base at the same temperature."""

    def __post_init__(self) -> None:
        if self.episodes < 0:
            raise ConfigError(f"{self.episodes} tuning episodes: give 0 for no tuning, or at least 1")
        if self.episodes and not (self.samples and self.temperatures):
            raise ConfigError("tuning needs at least one number of candidates and one temperature to try")

    @property
    def seeds(self) -> range:
        return range(self.seed, self.seed + self.episodes)


def check_disjoint(tuning: range, evaluation: range) -> None:
    """Raise `ConfigError` when a start would serve both to choose the settings and to judge them."""
    if tuning and evaluation and tuning.start < evaluation.stop and evaluation.start < tuning.stop:
        raise ConfigError(
            f"tuning seeds {tuning.start}..{tuning.stop - 1} overlap evaluation seeds {evaluation.start}..{evaluation.stop - 1}: "
            "settings chosen on the evaluation's own starts flatter it; move --tune-seed or --seed"
        )


def as_base(settings: RolloutSettings) -> RolloutSettings:
    """The policy alone at the same noise scale: candidate 0, no critic, no refinement."""
    return replace(settings, num_samples=1, selection=Selection(choose="first"))


def tune(runner: Runner, settings: RolloutSettings, tuning: TuningSettings, progress: Progress | None = None) -> Tuning:
    """Try the grid; the best setting is `samples` and `temperature` of the result."""
    trials: list[RolloutSettings] = []
    for temperature in tuning.temperatures:
        at = replace(settings, temperature=temperature)
        trials += [as_base(at), *(replace(at, num_samples=samples) for samples in tuning.samples)]
    jobs = [Job(seed, trial) for trial in trials for seed in tuning.seeds]
    outcomes = successes(runner.run(jobs, progress)).reshape(len(trials), tuning.episodes).mean(axis=1)
    per_temperature = outcomes.reshape(len(tuning.temperatures), 1 + len(tuning.samples))
    points = _points(per_temperature, tuning)
    best = max(points, key=lambda point: _preference(point, tuning))
    return Tuning(tuning.seed, tuning.episodes, tuning.criterion, points, best.samples, best.temperature)


def _points(outcomes: np.ndarray, tuning: TuningSettings) -> tuple[TuningPoint, ...]:
    return tuple(
        TuningPoint(samples, temperature, float(row[0]), float(row[1 + k]), float(row[1 + k] - row[0]))
        for temperature, row in zip(tuning.temperatures, outcomes, strict=True)
        for k, samples in enumerate(tuning.samples)
    )


def _preference(point: TuningPoint, tuning: TuningSettings) -> tuple[float, int, float]:
    """Higher is better; among equals the cheaper, then the one closer to the policy's own noise."""
    value = point.steered if tuning.criterion == "steered" else point.difference
    return (round(value, 9), -point.samples, -abs(point.temperature - 1.0))
