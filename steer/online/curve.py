"""`LearningCurve`: what the versions of a run are worth, each played alone and steered from the same held-out starts.

Nothing of the run is trusted for this but its checkpoints: the episodes that it learnt from are another matter than the ones
that it is measured on. What was played is kept by the models' hashes, so that a measurement that was stopped goes on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Bool

from steer.checkpoints import read_checkpoint
from steer.errors import ConfigError
from steer.evaluation.evaluate import Stage
from steer.evaluation.result import Rate
from steer.evaluation.rollout import RolloutSettings
from steer.evaluation.runner import Job, Progress, Runner
from steer.evaluation.setup import Setup
from steer.evaluation.statistics import Estimate, paired_difference
from steer.evaluation.summary import rate
from steer.files import write_text
from steer.online.progress import read_rounds
from steer.online.publish import Versions
from steer.serial import to_json

_KEPT_AT_ONCE = 50


@dataclass(frozen=True)
class Moment:
    """A version, and what the run had cost when it came out."""

    version: int
    episodes: int
    robot_minutes: float
    minutes: float


@dataclass(frozen=True)
class Point:
    """One version measured. Gains are paired differences to the first point, on the starts that both have."""

    moment: Moment
    base: Rate
    steered: Rate
    base_gain: Estimate
    steered_gain: Estimate


@dataclass(frozen=True)
class LearningCurve:
    """Points in the order of their episodes. rounds: what the run told of each round (`steer.online.learner.Round`)."""

    points: tuple[Point, ...]
    rounds: tuple[Mapping[str, Any], ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


def moments(run: Path, episodes: Sequence[int], robot_minutes: float = 0.0) -> list[Moment]:
    """The first version with so many episodes, for each number; the first after so much robot time (0: the last) ends them.

    Raises `ConfigError` when the run has no finished round, or not yet so much robot time.
    """
    rounds = read_rounds(run / "rounds.jsonl")
    if not rounds:
        raise ConfigError(f"{run}: no finished round here: give the folder of a `steer finetune` run")
    known = [Moment(0, 0, 0.0, 0.0), *map(_moment, rounds)]
    if known[-1].robot_minutes < robot_minutes:
        raise ConfigError(
            f"{run}: the run has {known[-1].robot_minutes:.1f} minutes of robot time, {robot_minutes:g} are asked for: "
            "let it go on with --resume, or ask for less"
        )
    if robot_minutes:
        known = known[: 1 + next(i for i, moment in enumerate(known) if moment.robot_minutes >= robot_minutes)]
    chosen = [next((moment for moment in known if moment.episodes >= number), known[-1]) for number in episodes]
    return sorted({*chosen, known[-1]}, key=lambda moment: moment.version)


Successes: TypeAlias = Bool[np.ndarray, " n"]


class Sides(NamedTuple):
    """Success from the same starts, with and without the critic."""

    alone: Successes
    steered: Successes


@dataclass(frozen=True)
class Measurement:
    """How versions are played: where, from which starts, and with how many candidates."""

    run: Path
    setup: Setup
    """The environment; its models are replaced."""
    settings: RolloutSettings
    cache: Path
    """Folder of what was played."""
    seed: int = 100_000
    episodes: int = 200
    last_episodes: int = 0
    """Starts of the first and the last point; 0: as many as of the others."""
    workers: int = 0

    def curve(self, chosen: Sequence[Moment], stage: Stage) -> LearningCurve:
        """Play what `cache` does not have yet. stage: told of each side of each version."""
        played = {moment: self._play(moment, moment in (chosen[0], chosen[-1]), stage) for moment in chosen}
        points = tuple(_point(moment, played[moment], played[chosen[0]]) for moment in chosen)
        return LearningCurve(points, tuple(read_rounds(self.run / "rounds.jsonl")), self._about())

    def _play(self, moment: Moment, ends: bool, stage: Stage) -> Sides:
        """The version's policy alone, and steered."""
        folder = Versions(self.run).folder(moment.version)
        policy, critic, edit = (str(folder / name) for name in ("policy", "critic", "edit"))
        refine = f"edit:{edit}" if Path(edit).exists() else ""
        starts = max(self.episodes, self.last_episodes) if ends else self.episodes
        alone = replace(self.setup, policy=policy)
        steered = replace(self.setup, policy=policy, critic=critic, refine=refine)
        what = f"version {moment.version}"
        return Sides(
            self._side(alone, 1, starts, stage(f"{what}, policy alone", starts)),
            self._side(steered, self.settings.num_samples, starts, stage(f"{what}, steered", starts)),
        )

    def _side(self, setup: Setup, samples: int, starts: int, progress: Progress) -> Successes:
        settings = replace(self.settings, num_samples=samples)
        cell = self.cache / f"{_key(setup, settings, self.seed)}.json"
        successes = json.loads(cell.read_text()) if cell.exists() else []
        if len(successes) < starts:
            with Runner(setup, self.workers) as runner:
                while (done := len(successes)) < starts:
                    jobs = [Job(self.seed + i, settings) for i in range(done, min(done + _KEPT_AT_ONCE, starts))]
                    successes += [rollout.success for rollout in runner.run(jobs)]
                    write_text(cell, json.dumps(successes))
                    progress(len(successes), starts)
        progress(starts, starts)
        return np.array(successes[:starts], bool)

    def _about(self) -> dict[str, Any]:
        return {
            "run": str(self.run),
            "env_id": self.setup.env_id,
            "env_options": dict(self.setup.env_options),
            "first_seed": self.seed,
            **to_json(self.settings),
        }


def _key(setup: Setup, settings: RolloutSettings, seed: int) -> str:
    """What decides how the episodes end, as a short hash; models count by their weights, wherever they lie."""
    paths = [setup.policy, setup.critic, setup.refine.removeprefix("edit:")]
    models = [read_checkpoint(Path(path)).version for path in paths if path]
    world = [setup.env_id, setup.env_options, setup.keys, setup.robot]
    text = json.dumps([models, to_json([*world, settings]), seed], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _moment(told: Mapping[str, Any]) -> Moment:
    return Moment(told["version"], told["episodes"], told["robot_minutes"], told["seconds"] / 60)


def _point(moment: Moment, played: Sides, first: Sides) -> Point:
    gains = []
    for mine, start in zip(played, first, strict=True):
        both = min(len(mine), len(start))
        gains.append(paired_difference(start[:both], mine[:both]))
    return Point(moment, rate(played.alone), rate(played.steered), *gains)
