"""`steer demo`: from nothing to a paired evaluation through gRPC. It runs the same commands a user would, in the same order.

collect ─> train policy ─> train critic ─> serve ─> eval --server ─> report
"""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from steer.errors import ConfigError, UnavailableError
from steer.evaluation.result import Evaluation

ENVIRONMENT = "steer/PickPlace-v0"
READY_S = 60.0


@dataclass(frozen=True)
class Recipe:
    """The numbers of one demo. `FULL` is the measured recipe; see the README for what it gave."""

    demonstrations: int
    policy_steps: int
    critic_steps: int
    pairs: int
    k_sweep: tuple[int, ...]


FULL = Recipe(demonstrations=600, policy_steps=6000, critic_steps=4000, pairs=200, k_sweep=(4,))
FAST = Recipe(demonstrations=150, policy_steps=1500, critic_steps=600, pairs=30, k_sweep=())

# Below this many pairs an interval says little, and the demo says so.
ENOUGH_PAIRS = 100


@dataclass(frozen=True)
class Demo:
    """Record demonstrations, train a policy and a critic, serve them, and compare base with steered."""

    out: Path = Path("runs/demo")
    """Folder of everything the demo makes; its own earlier content there is replaced."""
    fast: bool = False
    """Smaller numbers: three minutes, and intervals too wide to conclude much."""
    seed: int = 0
    """Seed of the data and of both trainings."""
    samples: int = 8
    """K, candidates per decision of the steered side."""
    temperature: float = 1.0
    """The policy's noise scale, the same for base and steered."""
    pairs: int = 0
    """Paired episodes; 0: the recipe's."""
    demonstrations: int = 0
    """Demonstrations to record; 0: the recipe's."""
    steps: int = 0
    """Updates of each training; 0: the recipe's."""

    def run(self) -> None:
        recipe = self._recipe()
        start = time.monotonic()
        _claim(self.out)
        data, policy, critic, report = (self.out / name for name in ("episodes", "policy", "critic", "report"))
        seed = str(self.seed)
        # Data seeds of different demos do not overlap, and never meet those of the evaluation (100000 and up).
        first = str(self.seed % 100 * 1000)
        _command("collect", data, "--episodes", recipe.demonstrations, "--seed", first)
        # One thread: these networks are too small to share, and two threads that wait for each other stall on a busy machine.
        common = ("--seed", seed, "--threads", 1)
        _command("train", "policy", data, policy, *common, "--steps", recipe.policy_steps)
        _command("train", "critic", data, critic, "--policy", policy, *common, "--steps", recipe.critic_steps)
        with _server(policy, critic, self.out / "server.log") as address:
            sweep = ["--k-sweep", *recipe.k_sweep] if recipe.k_sweep else []
            _command(
                *("eval", "--server", address, "--env", ENVIRONMENT, "--episodes", recipe.pairs, "--out", report),
                *("--samples", self.samples, "--temperature", self.temperature, *sweep),
            )
        seconds = time.monotonic() - start
        self._conclude(Evaluation.read(report / "result.json"), recipe, seconds)

    def _recipe(self) -> Recipe:
        recipe = FAST if self.fast else FULL
        return replace(
            recipe,
            demonstrations=self.demonstrations or recipe.demonstrations,
            policy_steps=self.steps or recipe.policy_steps,
            critic_steps=self.steps or recipe.critic_steps,
            pairs=self.pairs or recipe.pairs,
        )

    def _conclude(self, result: Evaluation, recipe: Recipe, seconds: float) -> None:
        console = Console()
        console.print(f"\nreport: {self.out / 'report' / 'report.html'}")
        if result.episodes < ENOUGH_PAIRS:
            console.print(f"[yellow]These are small numbers ({result.episodes} pairs, {recipe.demonstrations} demonstrations): "
                          "run without FAST=1 for figures to rely on.[/]")  # fmt: skip
        fields = ("base", "steered", "difference", "low", "high", "episodes")
        print(json.dumps({name: getattr(result, name) for name in fields} | {"seconds": round(seconds, 1)}))


def _claim(out: Path) -> None:
    """Start from an empty folder, but delete only what an earlier demo made."""
    mark = out / ".steer-demo"
    if out.exists() and any(out.iterdir()) and not mark.exists():
        raise ConfigError(f"{out} holds something that no demo made: give another --out")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    mark.touch()


def _command(*words: object) -> None:
    """Run one `steer` command as a user would; its own message is the explanation when it fails."""
    text = [str(word) for word in words]
    Console().rule(f"[bold]steer {' '.join(text)}", align="left")
    done = subprocess.run([sys.executable, "-m", "steer.cli.main", *text], check=False)
    if done.returncode == -signal.SIGINT or done.returncode == 130:
        raise KeyboardInterrupt
    if done.returncode:
        raise ConfigError(f"'steer {text[0]}' ended with exit code {done.returncode}: see its message above")


@contextmanager
def _server(policy: Path, critic: Path, log: Path) -> Iterator[str]:
    """`steer serve` in a process of its own, ready; it is stopped in the end."""
    address = f"127.0.0.1:{_free_port()}"
    words = [
        "serve",
        "--policy",
        str(policy),
        "--critic",
        str(critic),
        "--address",
        address,
        "--deterministic",
        "--allow-unready",
    ]
    Console().rule(f"[bold]steer {' '.join(words)}", align="left")
    with log.open("w") as output:
        process = subprocess.Popen([sys.executable, "-m", "steer.cli.main", *words], stdout=output, stderr=output)
        try:
            _wait_ready(process, address, log)
            yield address
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_ready(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    """Until the server's health says SERVING."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        deadline = time.monotonic() + READY_S
        while process.poll() is None and time.monotonic() < deadline:
            try:
                reply = stub.Check(health_pb2.HealthCheckRequest(), timeout=1.0, wait_for_ready=True)
            except grpc.RpcError:
                continue
            if reply.status == health_pb2.HealthCheckResponse.SERVING:
                return
    raise UnavailableError(f"the server did not become ready within {READY_S:g} s: see {log}\n{_tail(log)}")


def _tail(log: Path, lines: int = 5) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
