"""Paired evaluation: base (K = 1) and steered on the same initial states at the same noise scale.

    tune (other seeds) ─> base, steered (same seeds) ─> success against K (same seeds) ─> replayed pairs for the videos

Contract: whatever is compared shares its seeds and its temperature. Writes no files; see `steer.evaluation.report`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any

from steer.errors import ConfigError
from steer.evaluation.result import Evaluation, Rate, SweepPoint, Tuning
from steer.evaluation.rollout import Rollout, RolloutSettings
from steer.evaluation.runner import Job, Progress, Runner
from steer.evaluation.setup import Facts
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
    keep: Callable[[Sequence[Rollout]], None] | None = None,
) -> Played:
    """Run the whole evaluation.

    about: further entries of the result's `settings` (names of models, environment).
    keep: called with the base and with the steered episodes as soon as each side is complete.
    """
    start = time.monotonic()
    played = resolve_execute(settings.rollout, runner.facts.prefixes)
    tuning = _tune(runner, settings.tuning, played, stage)
    if tuning is not None:
        played = replace(played, num_samples=tuning.samples, temperature=tuning.temperature)
    sides = []
    for name, side in (("base", as_base(played)), (f"steered, K = {played.num_samples}", played)):
        sides.append(_play(runner, settings.seeds, side, stage(name, settings.episodes)))
        if keep is not None:
            keep(sides[-1])
    base, steered = sides
    # The base is K = 1, also where the steered side has one candidate of the policy and further ones of a refiner.
    known = {played.num_samples: rate(successes(steered)), 1: rate(successes(base))}
    result = replace(
        _compare(base, steered, runner.facts),
        settings={**(about or {}), **_settings(settings, played, base[0].rate_hz)},
        k_sweep=_sweep(runner, settings, played, stage, known),
        tuning=tuning,
    )
    return Played(replace(result, seconds=time.monotonic() - start), tuple(base), tuple(steered), played)


def _compare(base: Sequence[Rollout], steered: Sequence[Rollout], facts: Facts) -> Evaluation:
    """The two sides as a result that does not say yet how it was made."""
    base_rate, steered_rate = rate(successes(base)), rate(successes(steered))
    difference, low, high = paired_difference(successes(base), successes(steered))
    gained, lost = discordance(successes(base), successes(steered))
    return Evaluation(
        base=base_rate.success,
        steered=steered_rate.success,
        difference=difference,
        low=low,
        high=high,
        episodes=len(base),
        mcnemar_p=mcnemar_exact(successes(base), successes(steered)),
        gained=gained,
        lost=lost,
        base_interval=(base_rate.low, base_rate.high),
        steered_interval=(steered_rate.low, steered_rate.high),
        per_episode={"base": tuple(map(episode_result, base)), "steered": tuple(map(episode_result, steered))},
        latency={"base": latency(base), "steered": latency(steered)},
        calibration=calibration(steered, facts.gamma),
        verdict=facts.verdict,
        cuts=cuts(steered),
        versions={"steer": version("steer-robotics"), **_versions(steered)},
        settings={},
        seconds=0.0,
    )


def resolve_execute(settings: RolloutSettings, prefixes: Sequence[int]) -> RolloutSettings:
    """Without a wish, run as many steps as the critic can score."""
    if settings.execute or not prefixes:
        return settings
    return replace(settings, execute=max(prefixes))


def _tune(runner: Runner, grid: TuningSettings, played: RolloutSettings, stage: Stage) -> Tuning | None:
    if not grid.episodes:
        return None
    trials = len(grid.temperatures) * (1 + len(grid.samples)) * grid.episodes
    return tune(runner, played, grid, stage("tuning", trials))


def _settings(settings: EvaluationSettings, played: RolloutSettings, rate_hz: float) -> dict[str, Any]:
    """What was played, as JSON; pictures are the report's business."""
    values: dict[str, Any] = {"seed": settings.seed, "rate_hz": rate_hz, **to_json(played)}
    del values["render_every"]
    return values


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
        info = played.episode.info
        for stretch in info.get("versions", [info]):
            for name in ("policy", "critic"):
                weights = stretch[f"{name}_version"]
                if weights and weights not in found.setdefault(name, []):
                    found[name].append(weights)
    return {name: ", ".join(versions) for name, versions in found.items()}
