"""Cells of a table: made once, kept in a folder, and read from there ever after, so that a run that was stopped goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.keep import keep
from steer.evaluation.rollout import RolloutSettings
from steer.evaluation.runner import Job, Runner
from steer.evaluation.setup import Setup
from steer.evaluation.statistics import paired_difference, wilson
from steer.progress import ProgressBar

ENVIRONMENT = "steer/PickPlace-v0"


@dataclass(frozen=True)
class Cells:
    """The folder `work` and what fills it."""

    work: Path
    console: Console

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """A cell's result: read if it is there, else made and kept."""
        path = self.work / f"{name}.json"
        if not path.exists():
            keep(path, make())
        return json.loads(path.read_text())

    def steer(self, name: str, words: Sequence[object]) -> None:
        """Run one `steer` command, its output in NAME.log; stops the benchmark with the log's end when it fails."""
        self.run(name, [sys.executable, "-m", "steer.cli.main", *words])

    def run(self, name: str, command: Sequence[object]) -> None:
        """Run any command likewise."""
        self.console.print(f"{name}: {' '.join(map(str, command[1:]))}", highlight=False, soft_wrap=True)
        self.work.mkdir(parents=True, exist_ok=True)
        log = self.work / f"{name}.log"
        with log.open("w") as output:
            done = subprocess.run([str(word) for word in command], stdout=output, stderr=output, check=False)
        if done.returncode:
            raise SystemExit(f"{name} failed, see {log}:\n{log.read_text()[-2000:]}")

    def play(self, name: str, setup: Setup, settings: RolloutSettings, seeds: Sequence[int]) -> list[bool]:
        """Successes of one episode per seed, on all cores; kept under `name`."""
        return list(self.once(name, lambda: self._play(name, setup, settings, seeds)))

    def _play(self, name: str, setup: Setup, settings: RolloutSettings, seeds: Sequence[int]) -> list[bool]:
        jobs = [Job(seed, settings) for seed in seeds]
        with Runner(setup) as runner, ProgressBar(self.console) as bar:
            task = bar.add_task(name, total=len(jobs))
            played = runner.run(jobs, lambda done, _: bar.update(task, completed=done))
        return [rollout.success for rollout in played]


def success_of(success: Sequence[bool], base: Sequence[bool]) -> dict[str, Any]:
    """Success with its Wilson interval, and the paired difference from `base`, played on the same starts."""
    rate, low, high = wilson(sum(success), len(success))
    gain = paired_difference(base, success)
    return {
        "success": rate,
        "low": round(low, 4),
        "high": round(high, 4),
        "episodes": len(success),
        "gain": [round(value, 4) for value in gain],
    }
