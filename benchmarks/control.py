"""Does the control loop keep its deadlines while a server on the same machine decides for it?

    python -m benchmarks.control [--json]                                       small numpy models
    python -m benchmarks.control --policy runs/demo/policy --critic runs/demo/critic [--json]

The server is another process, reached over loopback. Stretches of the real loop alternate with stretches of an empty
one (the same deadlines, nothing to do), so that both see the same machine: the difference is ours, the rest is the machine's.
Then the client asks back to back, for the round trip over the engine's own time. The last line is one JSON object:

    loop, empty     ticks, late (share of ticks more than 5 ms late), p50_ms, p99_ms, p999_ms, max_ms, skipped
    extra_late      percentage points of late ticks that the loop adds to the empty one
    stale_sent      actions sent although their observation was too old; must be 0
    round_trip      p50_ms, engine_ms (p50), ratio
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console

from benchmarks.keep import keep
from steer import registry
from steer.client.broker import BrokerConfig
from steer.client.clock import MonotonicClock, Stop
from steer.client.loop import ControlLoop, LoopConfig, RunSummary
from steer.client.steering_client import SteeringClient
from steer.client.timing import Deadlines, TickStatistics
from steer.decision import Request
from steer.errors import UnavailableError
from steer.history import History
from steer.robot import Robot
from steer.wire import Execution
from tests.fakes import FakeRobot

_console = Console(stderr=True)


@dataclass(frozen=True)
class Control:
    """Measure the control loop beside an empty one."""

    policy: str = ""
    """Checkpoint of the policy; without one, small numpy models decide for a robot that is only numbers."""
    critic: str = ""
    """Checkpoint of the critic."""
    robot: str = "gym:steer/PickPlace-v0"
    """The robot, where a policy is given."""
    seconds: float = 60.0
    """Of each of the two loops, all stretches together."""
    stretches: int = 6
    """How often the two alternate."""
    samples: int = 8
    """K."""
    execute: int = 3
    """E."""
    committed: int = 1
    """d."""
    round_trips: int = 200
    """Requests back to back."""
    json: bool = False
    """Print the JSON object alone."""
    out: Path | None = Path("benchmarks/results/control.json")
    """Where the result is kept."""

    def run(self) -> None:
        with self._server() as address:
            result = self._measure(address)
        if self.out is not None:
            keep(self.out, result)
        if not self.json:
            _console.print_json(json.dumps(result))
        print(json.dumps(result))

    @contextmanager
    def _server(self) -> Iterator[str]:
        words = ["-m", "benchmarks.control_server"]
        if self.policy:
            words = ["-m", "steer.cli.main", "serve", "--policy", self.policy, "--address", "127.0.0.1:0"]
            words += ["--critic", self.critic, "--allow-unready"] if self.critic else []
        process = subprocess.Popen(
            [sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            yield listening(process)
        finally:
            process.terminate()
            process.wait(30)

    @property
    def _stretch_s(self) -> float:
        return self.seconds / self.stretches

    def _robot(self) -> Robot:
        if self.policy:
            return registry.robot(self.robot)
        return FakeRobot(now=time.monotonic)

    def _measure(self, address: str) -> dict[str, Any]:
        robot = self._robot()
        robot.connect()
        execution = Execution(self.samples, 0.8, self.execute)
        client = SteeringClient(address, robot.spec, execution=execution)
        real, idle = TickStatistics(), TickStatistics()
        summaries: list[RunSummary] = []
        for stretch in range(self.stretches):
            _console.print(f"stretch {stretch + 1} of {self.stretches}")
            broker = BrokerConfig(execution, self.committed)
            loop = ControlLoop(robot, client, broker, LoopConfig(duration_s=self._stretch_s, seed=1_000_000 * stretch))
            summaries.append(loop.run())
            real.extend(loop.statistics)
            idle.extend(empty_loop(robot.spec.action.rate_hz, self._stretch_s))
        round_trip = self._round_trip(client, robot)
        client.close()
        robot.close()
        controlled, empty = real.summary(), idle.summary()
        return {
            "rate_hz": robot.spec.action.rate_hz,
            "seconds": self.seconds,
            "samples": self.samples,
            "models": self.policy or "numpy fakes",
            "loop": asdict(controlled),
            "empty": asdict(empty),
            "extra_late": round(100 * (controlled.late - empty.late), 3),
            "chunks": sum(s.chunks for s in summaries),
            "late_chunks": sum(s.late_chunks for s in summaries),
            "holds": sum(s.holds for s in summaries),
            "stale_sent": sum(s.stale_sent for s in summaries),
            "oldest_sent_ms": round(1e3 * max(s.oldest_sent_s for s in summaries), 1),
            "round_trip": round_trip,
        }

    def _round_trip(self, client: SteeringClient, robot: Robot) -> dict[str, float]:
        """Medians over requests back to back, on one observation."""
        if self.policy:
            robot.home()
        history = History(client.observation)
        history.push(robot.observe())
        trips, engines = [], []
        for seed in range(self.round_trips):
            request = Request(history.observation(), seed=seed, num_samples=self.samples, temperature=0.8)
            start = time.perf_counter()
            decision = client.infer(replace(request, execute=self.execute + self.committed))
            trips.append(time.perf_counter() - start)
            engines.append(decision.timings_s["engine"])
        trip_s, engine_s = float(np.median(trips)), float(np.median(engines))
        return {"p50_ms": 1e3 * trip_s, "engine_ms": 1e3 * engine_s, "ratio": trip_s / engine_s}


def empty_loop(rate_hz: float, seconds: float) -> TickStatistics:
    """The deadlines alone: what this machine can do at best."""
    clock, stop, statistics = MonotonicClock(), Stop(), TickStatistics()
    start = clock.now()
    deadlines = Deadlines(start, 1.0 / rate_hz)
    while deadlines.due < start + seconds:
        clock.sleep_until(deadlines.due, stop)
        statistics.add(clock.now() - deadlines.due)
        statistics.skipped += deadlines.advance(clock.now())
    return statistics


def listening(process: subprocess.Popen[str]) -> str:
    """Where the server listens, from its own words; then its output is read on, so that it never blocks on a full pipe."""
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if match := re.search(r"serving on (\S+),", line):
            threading.Thread(target=process.stdout.read, daemon=True).start()
            return match.group(1)
    raise UnavailableError(f"the server did not start:\n{''.join(said)}")


if __name__ == "__main__":
    tyro.cli(Control).run()
