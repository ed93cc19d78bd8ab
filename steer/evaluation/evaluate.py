"""Paired evaluation: base (K = 1) and steered on the same initial states at the same noise scale.

    tune (other seeds) ─> base, steered (same seeds) ─> success against K (same seeds) ─> replayed pairs for the videos

Contract: whatever is compared shares its seeds and its temperature. Writes no files; see `steer.evaluation.report`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from steer.errors import ConfigError
from steer.evaluation.result import Evaluation, Rate, SweepPoint
from steer.evaluation.rollout import Rollout, RolloutSettings
from steer.evaluation.runner import Job, Progress, Runner
from steer.evaluation.statistics import discordance, mcnemar_exact, paired_difference
from steer.evaluation.summary import calibration, cuts, episode_result, latency, rate, successes
from steer.evaluation.tuning import TuningSettings, as_base, check_disjoint, tune
from steer.serial import to_json

Stage = Callable[[str, int], Progress]
"""Opens a stage of that name with that many episodes; returns what to call as they are played."""


@dataclass(frozen=True)
class EvaluationSettings:
    """What is played."""

    rollout: RolloutSettings
    episodes: int = 100
    seed: int = 100_000
    k_sweep: tuple[int, ...] = ()
    tuning: TuningSettings = field(default_factory=TuningSettings)

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise ConfigError(f"{self.episodes} episodes: play at least 1")
        if self.seed < 0 or self.tuning.seed < 0:
            raise ConfigError(f"seeds {self.seed} and {self.tuning.seed}: give 0 or more")
        if any(samples < 1 for samples in self.k_sweep):
            raise ConfigError(f"success against K = {list(self.k_sweep)}: every K is at least 1")
        check_disjoint(self.tuning.seeds, self.seeds)

    @property
    def seeds(self) -> range:
        return range(self.seed, self.seed + self.episodes)


@dataclass(frozen=True)
class Played:
    """The result and the rollouts behind it, in the order of the seeds."""

    result: Evaluation
    base: tuple[Rollout, ...]
    steered: tuple[Rollout, ...]
    rollout: RolloutSettings


def evaluate(
    runner: Runner,
    settings: EvaluationSettings,
    stage: Stage,
    about: Mapping[str, Any] | None = None,
) -> Played:
    """Run the whole evaluation. about: further entries of the result's `settings` (names of models, environment)."""
    start = time.monotonic()
    played = resolve_execute(settings.rollout, runner.facts.prefixes)
    tuning = None
    if settings.tuning.episodes:
        grid = settings.tuning
        trials = len(grid.temperatures) * (1 + len(grid.samples)) * grid.episodes
        tuning = tune(runner, played, grid, stage("tuning", trials))
        played = replace(played, num_samples=tuning.samples, temperature=tuning.temperature)
    base = _play(runner, settings.seeds, as_base(played), stage("base", settings.episodes))
    steered = _play(runner, settings.seeds, played, stage(f"steered, K = {played.num_samples}", settings.episodes))
    sweep = _sweep(
        runner, settings, played, stage, {1: rate(successes(base)), played.num_samples: rate(successes(steered))}
    )
    base_ok, steered_ok = successes(base), successes(steered)
    difference, low, high = paired_difference(base_ok, steered_ok)
    gained, lost = discordance(base_ok, steered_ok)
    base_rate, steered_rate = rate(base_ok), rate(steered_ok)
    result = Evaluation(
        base=base_rate.success,
        steered=steered_rate.success,
        difference=difference,
        low=low,
        high=high,
        episodes=settings.episodes,
        mcnemar_p=mcnemar_exact(base_ok, steered_ok),
        gained=gained,
        lost=lost,
        base_interval=(base_rate.low, base_rate.high),
        steered_interval=(steered_rate.low, steered_rate.high),
        per_episode={"base": tuple(map(episode_result, base)), "steered": tuple(map(episode_result, steered))},
        latency={"base": latency(base), "steered": latency(steered)},
        settings={
            **(about or {}),
            "seed": settings.seed,
            "rate_hz": runner.facts.robot.action.rate_hz,
            **to_json(played),
        },
        versions=_versions(steered),
        seconds=time.monotonic() - start,
        k_sweep=sweep,
        calibration=calibration(steered, runner.facts.gamma),
        tuning=tuning,
        verdict=runner.facts.verdict,
        cuts=cuts(steered),
    )
    return Played(result, tuple(base), tuple(steered), played)


def resolve_execute(settings: RolloutSettings, prefixes: Sequence[int]) -> RolloutSettings:
    """Without a wish, run as many steps as the critic can score."""
    if settings.execute or not prefixes:
        return settings
    return replace(settings, execute=max(prefixes))


def _play(runner: Runner, seeds: Sequence[int], settings: RolloutSettings, progress: Progress) -> list[Rollout]:
    return runner.run([Job(seed, settings) for seed in seeds], progress)


def _sweep(
    runner: Runner, settings: EvaluationSettings, played: RolloutSettings, stage: Stage, known: dict[int, Rate]
) -> tuple[SweepPoint, ...]:
    """Success against K; what base and steered have shown already is not played again."""
    if not settings.k_sweep:
        return ()
    wanted = sorted({1, played.num_samples, *settings.k_sweep})
    for samples in wanted:
        if samples not in known:
            at = replace(played, num_samples=samples)
            known[samples] = rate(
                successes(_play(runner, settings.seeds, at, stage(f"K = {samples}", settings.episodes)))
            )
    return tuple(SweepPoint(samples, known[samples]) for samples in wanted)


def _versions(rollouts: Sequence[Rollout]) -> dict[str, str]:
    """Versions as the decisions state them; several, if a model was swapped meanwhile."""
    found: dict[str, list[str]] = {}
    for played in rollouts:
        for name, version in played.episode.info["versions"].items():
            if version and version not in found.setdefault(name, []):
                found[name].append(version)
    return {name: ", ".join(versions) for name, versions in found.items()}
