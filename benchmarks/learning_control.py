"""Does the control loop keep its deadlines while a learner trains on the same cores, and does the learner get on meanwhile?

    python -m benchmarks.learning_control --demo runs/demo [--json]

Three processes on one machine: `steer finetune --actors 0` learns from the store that this process records into, `steer serve
--follow` serves what it publishes, and here the real loop runs at its rate, in stretches that alternate with an empty loop (the
same deadlines, nothing to do) while the others work on. UTD is set so high that the learner always has something to do. The
last line is one JSON object:

    loop, empty     ticks, late (share of ticks more than 5 ms late), p50_ms, p99_ms, p999_ms, max_ms, skipped
    extra_late      percentage points of late ticks that the loop adds to the empty one
    fresh           share of ticks that had an action of a fresh chunk; without one the robot holds
    stale_sent      actions sent although their observation was too old; must be 0
    learner         cpu (share of one core that it got), versions published, episodes learnt from, and utd: the critic's updates
                    of finished rounds over all decisions of the loop meanwhile, so that one that falls behind shows it
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tyro
from rich.console import Console

from benchmarks.control import empty_loop, listening
from benchmarks.keep import keep
from steer import registry
from steer.client.broker import BrokerConfig
from steer.client.loop import ControlLoop, LoopConfig, RunSummary
from steer.client.recorder import Recorder
from steer.client.steering_client import SteeringClient
from steer.client.timing import TickStatistics
from steer.data.store import EpisodeStore
from steer.errors import UnavailableError
from steer.online.progress import read_rounds
from steer.online.publish import Versions
from steer.wire import Execution

_console = Console(stderr=True)
_START_S = 300.0


@dataclass(frozen=True)
class LearningControl:
    """Measure the control loop and the learner at the same time."""

    demo: Path = Path("runs/demo")
    """Folder of `steer demo`: episodes, policy, critic."""
    robot: str = "gym:steer/PickPlace-v0"
    seconds: float = 300.0
    """Of each of the two loops, all stretches together."""
    stretches: int = 10
    """How often the two alternate."""
    samples: int = 8
    """K."""
    execute: int = 2
    """E."""
    committed: int = 2
    """d."""
    utd: float = 20.0
    """Updates of critic and policy asked for per decision."""
    learner_nice: int = 10
    """The learner's niceness: a robot's ticks go first. 0: it competes with them."""
    json: bool = False
    """Print the JSON object alone."""
    out: Path | None = Path("benchmarks/results/learning_control.json")
    """Where the result is kept."""

    def run(self) -> None:
        with ExitStack() as stack:
            work = Path(stack.enter_context(TemporaryDirectory()))
            robot = registry.robot(self.robot)
            robot.connect()
            stack.callback(robot.close)
            store = EpisodeStore.create(work / "online", robot.spec)
            learner = stack.enter_context(self._learner(work))
            address = stack.enter_context(_server(work))
            execution = Execution(self.samples, 1.0, self.execute)
            client = SteeringClient(address, robot.spec, execution=execution)
            stack.callback(client.close)
            recorder = stack.enter_context(Recorder(store))
            result = self._measure(work, robot, client, recorder, execution, learner)
        if self.out is not None:
            keep(self.out, result)
        if not self.json:
            _console.print_json(json.dumps(result))
        print(json.dumps(result))

    @contextmanager
    def _learner(self, work: Path) -> Iterator[subprocess.Popen[bytes]]:
        models = [
            "--policy",
            self.demo / "policy",
            "--critic",
            self.demo / "critic",
            "--offline",
            self.demo / "episodes",
        ]
        rounds = ["--actors", 0, "--online", work / "online", "--episodes", 1_000_000, "--round-episodes", 3]
        words = [
            *models,
            "--out",
            work / "run",
            *rounds,
            "--utd",
            self.utd,
            "--policy-utd",
            self.utd,
            "--batch-size",
            256,
        ]
        command = [sys.executable, "-m", "steer.cli.main", "finetune", *map(str, words)]
        with (work / "learner.log").open("w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=lambda: os.nice(self.learner_nice))
            try:
                _published(process, work)
                yield process
            finally:
                process.terminate()
                process.wait(60)

    def _measure(
        self,
        work: Path,
        robot: Any,
        client: SteeringClient,
        recorder: Recorder,
        execution: Execution,
        learner: subprocess.Popen[bytes],
    ) -> dict[str, Any]:
        real, idle = TickStatistics(), TickStatistics()
        summaries: list[RunSummary] = []
        stretch_s = self.seconds / self.stretches
        began, used = time.monotonic(), _cpu_s(learner.pid)
        for stretch in range(self.stretches):
            _console.print(f"stretch {stretch + 1} of {self.stretches}")
            limits = LoopConfig(duration_s=stretch_s, seed=1_000_000 * stretch)
            loop = ControlLoop(robot, client, BrokerConfig(execution, self.committed), limits, recorder=recorder)
            summaries.append(loop.run())
            real.extend(loop.statistics)
            idle.extend(empty_loop(robot.spec.action.rate_hz, stretch_s))
        share = (_cpu_s(learner.pid) - used) / (time.monotonic() - began)
        learnt = self._learnt(work, real.summary().ticks)
        return self._account(real, idle, summaries) | {"learner": {"cpu": round(share, 3), **learnt}}

    def _learnt(self, work: Path, ticks: int) -> dict[str, Any]:
        rounds = read_rounds(work / "run" / "rounds.jsonl")
        last = rounds[-1] if rounds else {}
        updates = last.get("critic_updates", 0)
        # The learner's decisions are what its critic scores, however few steps the robot runs of them.
        decisions = ticks / registry.critic(str(self.demo / "critic")).spec.prefixes[0]
        return {
            "versions": Versions(work / "run").current().version,
            "episodes": last.get("episodes", 0),
            "utd": round(updates / max(decisions, 1), 2),
            "critic_updates": updates,
            "policy_updates": last.get("policy_updates", 0),
        }

    def _account(self, real: TickStatistics, idle: TickStatistics, summaries: list[RunSummary]) -> dict[str, Any]:
        controlled, empty = real.summary(), idle.summary()
        holds = sum(s.holds for s in summaries)
        return {
            "seconds": self.seconds,
            "samples": self.samples,
            "learner_nice": self.learner_nice,
            "utd_asked": self.utd,
            "loop": asdict(controlled),
            "empty": asdict(empty),
            "extra_late": round(100 * (controlled.late - empty.late), 3),
            "fresh": round(1 - holds / max(controlled.ticks, 1), 5),
            "holds": holds,
            "late_chunks": sum(s.late_chunks for s in summaries),
            "chunks": sum(s.chunks for s in summaries),
            "episodes": sum(s.episodes for s in summaries),
            "successes": sum(s.successes or 0 for s in summaries),
            "stale_sent": sum(s.stale_sent for s in summaries),
            "oldest_sent_ms": round(1e3 * max(s.oldest_sent_s for s in summaries), 1),
        }


@contextmanager
def _server(work: Path) -> Iterator[str]:
    command = ["-m", "steer.cli.main", "serve", "--follow", str(work / "run"), "--outcomes", str(work / "online")]
    process = subprocess.Popen(
        [sys.executable, *command, "--address", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield listening(process)
    finally:
        process.terminate()
        process.wait(60)


def _published(learner: subprocess.Popen[bytes], work: Path) -> None:
    """Wait for the first version."""
    deadline = time.monotonic() + _START_S
    while not (work / "run" / "current.json").exists():
        if learner.poll() is not None or time.monotonic() > deadline:
            raise UnavailableError(f"the learner published nothing:\n{(work / 'learner.log').read_text()}")
        time.sleep(0.5)


def _cpu_s(pid: int) -> float:
    """Processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    tyro.cli(LearningControl).run()
