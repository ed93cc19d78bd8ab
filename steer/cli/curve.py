"""`steer curve RUN`: what fine-tuning was worth, version by version, on held-out starts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

from steer.errors import ConfigError
from steer.evaluation.notes import points
from steer.evaluation.rollout import RolloutSettings
from steer.evaluation.setup import Setup
from steer.evaluation.statistics import Estimate
from steer.files import write_text
from steer.online.curve import LearningCurve, Measurement, moments
from steer.online.curve_report import headline, notes, write_curve_report
from steer.online.settings import read_settings
from steer.options import json_or_text, pairs
from steer.progress import stages
from steer.robot import read_robot
from steer.serial import to_json


@dataclass(frozen=True)
class Curve:
    """Play versions of a `steer finetune` run alone and steered, from the same held-out starts, and draw its learning curve."""

    run_folder: tyro.conf.Positional[Path]
    """Folder of the run."""
    at: tuple[int, ...] = (0, 75, 150, 300)
    """Numbers of online episodes; the first version that has so many is measured. The last version always is."""
    robot_minutes: float = 0.0
    """The last point: the first version with so much robot time; 0: the newest."""
    episodes: int = 200
    """Starts of each side of each point."""
    last_episodes: int = 400
    """Starts of the first and the last point, if more."""
    seed: int = 100_000
    """The first start. Neither the offline nor the online episodes may have used these."""
    samples: int = 8
    """K of the steered side."""
    robot_spec: Path | None = None
    """JSON file with the robot spec of an environment that does not carry one."""
    workers: int = 0
    """Processes; 0: one per core."""
    out: Path | None = None
    """Folder for curve.json and report.html; RUN/curve unless given."""
    played: Path | None = None
    """Folder that keeps how episodes ended; OUT/played unless given. Runs that share it play a model that they share once."""

    def run(self) -> None:
        started = _started(self.run_folder)
        self._check(started)
        out = self.out or self.run_folder / "curve"
        chosen = moments(self.run_folder, self.at, self.robot_minutes)
        console = Console(stderr=True)
        with stages(console) as stage:
            curve = self._measurement(started, out).curve(chosen, stage)
        write_text(out / "curve.json", json.dumps(to_json(curve), indent=1) + "\n")
        write_curve_report(out / "report.html", curve, started)
        Console(soft_wrap=True).print(_table(curve))
        for note in notes(curve):
            console.print(f"[dim]- {note}[/dim]", soft_wrap=True)
        console.print(f"report: {out / 'report.html'}", soft_wrap=True)
        print(json.dumps(summary(curve)))

    def _measurement(self, started: Mapping[str, Any], out: Path) -> Measurement:
        options = {key: json_or_text(text) for key, text in pairs(started["env_option"], "env_option").items()}
        robot = None if self.robot_spec is None else read_robot(self.robot_spec)
        # The models are those of each version.
        setup = Setup(
            started["env"], str(self.run_folder), env_options=options, keys=pairs(started["map"], "map"), robot=robot
        )
        settings = RolloutSettings(self.samples, started["config"]["temperature"], 0)
        played = self.played or out / "played"
        starts = (self.seed, self.episodes, self.last_episodes)
        return Measurement(self.run_folder, setup, settings, played, *starts, self.workers)

    def _check(self, started: Mapping[str, Any]) -> None:
        for name in ("episodes", "samples"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name} is {getattr(self, name)}, expected at least 1")
        first = started["first_seed"]
        learnt = range(first, first + moments(self.run_folder, ())[-1].episodes)
        starts = range(self.seed, self.seed + max(self.episodes, self.last_episodes))
        if max(learnt.start, starts.start) < min(learnt.stop, starts.stop):
            raise ConfigError(
                f"--seed {self.seed}: the starts {starts.start} to {starts.stop - 1} would run into those that the run "
                f"learnt from, {learnt.start} to {learnt.stop - 1}: choose others"
            )


def summary(curve: LearningCurve) -> dict[str, Any]:
    """Episodes -> what a benchmark keeps. low, high: of the paired gain of the policy alone since the start."""
    return {
        str(point.moment.episodes): {
            "base": round(point.base.success, 4),
            "steered": round(point.steered.success, 4),
            "low": round(point.base_gain.low, 4),
            "high": round(point.base_gain.high, 4),
            "steered_low": round(point.steered_gain.low, 4),
            "steered_high": round(point.steered_gain.high, 4),
            "minutes": round(point.moment.minutes, 2),
            "robot_minutes": round(point.moment.robot_minutes, 2),
            "starts": point.base.episodes,
        }
        for point in curve.points
    }


def _started(run: Path) -> dict[str, Any]:
    """What the run was started with."""
    started = read_settings(run)
    missing = [name for name in ("env", "env_option", "map", "first_seed", "config") if name not in started]
    if missing:
        raise ConfigError(f"{run / 'run.json'} lacks {', '.join(missing)}: give the folder of a `steer finetune` run")
    return started


def _table(curve: LearningCurve) -> Table:
    table = Table(title=headline(curve))
    for name in ("episodes", "robot min", "clock min", "starts", "policy alone", "gain", "steered", "gain"):
        table.add_column(name, justify="right")
    for point in curve.points:
        moment = point.moment
        table.add_row(
            *(str(moment.episodes), f"{moment.robot_minutes:.1f}", f"{moment.minutes:.1f}", str(point.base.episodes)),
            *(
                f"{point.base.success:.1%}",
                _gain(point.base_gain),
                f"{point.steered.success:.1%}",
                _gain(point.steered_gain),
            ),
        )
    return table


def _gain(gain: Estimate) -> str:
    return f"{points(gain.value)} [{points(gain.low)}, {points(gain.high)}]"
