"""One episode of pick-and-place, driven by an unmodified `openpi-client` in its own environment, through `steer serve`.

    python -m tests.interop.openpi_episode --client .venv-openpi/bin/python [--policy PATH --critic PATH]

The simulated arm is in this process, the policy and its critic in the server's, the robot program in the client's. Passes when
the episode ends and every action the arm was told is that of the engine for the same frames; whether it succeeds depends on
the models, which are hardly trained unless some are given.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from steer import registry
from steer.decision import Request
from steer.engine import Engine
from steer.environment import Environment
from steer.history import History
from steer.observation import Task
from steer.robot import Frame
from steer.spec import Array
from tests.interop.processes import server, small_models

ENVIRONMENT = "steer/PickPlace-v0"
SEED = 100_000
SAMPLES = 8
ROBOT = Path(__file__).with_name("openpi_robot.py")


@dataclass
class Arm:
    """The simulated arm, answering the robot program, and what happened to it."""

    environment: Environment
    frames: list[Frame] = field(default_factory=list)
    actions: list[Array] = field(default_factory=list)
    ended: bool = False
    success: bool = False

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        if question["do"] == "act":
            self._act(np.array(question["action"], np.float32))
            frame = self.frames[-1]
        else:
            frame = self.environment.reset(SEED)
            if not self.ended:  # the client's runtime brings its robot home after the last episode
                self.frames.append(frame)
        task = self.environment.task.instruction
        return {"task": task, "state": frame.arrays["state"].tolist(), "ended": self.ended}

    def _act(self, action: Array) -> None:
        outcome = self.environment.step(action)
        self.actions.append(action)
        self.frames.append(outcome.frame)
        self.ended, self.success = outcome.terminated or outcome.truncated, outcome.success


def main(client: Path, policy: Path | None = None, critic: Path | None = None, execute: int = 4) -> int:
    """Run the episode and compare.

    Args:
        client: The interpreter of an environment with openpi-client.
        policy: A policy on `state`; a hardly trained one is made unless given.
        critic: Its critic.
        execute: Steps of each chunk that the client runs.
    """
    with tempfile.TemporaryDirectory() as scratch:
        if policy is None or critic is None:
            _, policy, critic = small_models(Path(scratch))
        with _server(policy, critic, execute) as port:
            arm = Arm(Environment(ENVIRONMENT))
            end = _drive(client, port, execute, arm)
            task = arm.environment.task
            arm.environment.close()
        expected = _expected(registry.engine(str(policy), str(critic)), arm, execute, task)
    difference = float(np.abs(np.stack(arm.actions) - expected).max())
    steps = len(arm.actions)
    print(
        f"openpi-client on numpy {end['numpy']}: {steps} steps from {end['calls']} chunks, success {arm.success}, "
        f"largest difference from the engine {difference:.2g}"
    )
    asked = -(-steps // execute)
    if not arm.ended or end["calls"] != asked or difference > 1e-6:
        print(f"FAILED: expected an episode that ends, {asked} chunks and the engine's own actions")
        return 1
    return 0


def _drive(client: Path, port: int, execute: int, arm: Arm) -> dict[str, Any]:
    """Answer the robot program until it says that it is done."""
    words = [str(client), str(ROBOT), str(port), str(execute)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as robot:
        assert robot.stdin is not None
        assert robot.stdout is not None
        for line in robot.stdout:
            question = json.loads(line)
            if question["do"] == "end":
                return dict(question)
            print(json.dumps(arm.answer(question)), file=robot.stdin, flush=True)
    raise SystemExit(f"the robot program ended with exit code {robot.returncode}: see its message above")


def _expected(engine: Engine, arm: Arm, execute: int, task: Task) -> Array:
    """What the engine decides for the frames that the client sent, chunk after chunk."""
    history = History(engine.observation)
    actions: list[Array] = []
    for chunk, step in enumerate(range(0, len(arm.actions), execute)):
        history.push(arm.frames[step])
        request = Request(history.observation(), task, seed=chunk, num_samples=SAMPLES, execute=execute)
        actions += list(engine.decide([request])[0].actions)
    return np.stack(actions[: len(arm.actions)])


@contextmanager
def _server(policy: Path, critic: Path, execute: int) -> Iterator[int]:
    """`steer serve` with both endpoints on free ports; yields that of openpi."""
    words = ["--policy", policy, "--critic", critic, "--allow-unready", "--deterministic", "--threads", 1]
    words += ["--address", "127.0.0.1:0", "--openpi-port", 0, "--openpi-execute", execute, "--openpi-samples", SAMPLES]
    words += ["--openpi-map", "observation/state=state"]
    with server(*words, ready=r"ws://\S+:(\d+)") as port:
        yield int(port)


if __name__ == "__main__":
    raise SystemExit(tyro.cli(main))
