"""The README's commands, run one after the other by a stranger with an environment and a folder of episodes.

Only sizes change, by the table below; a row that matches nothing fails the test, so the two cannot drift apart.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from steer.evaluation.result import Evaluation
from tests.readme.my_arm import AXES, ENTRIES, record_episode

ROOT = Path(__file__).parent.parent.parent
PORT = "50051"
EPISODES = 45

# README -> test: the same commands, small.
SMALLER = (
    ("train policy data policy", "train policy data policy --steps 60 --threads 1"),
    ("--policy policy\n", "--policy policy --steps 40 --threads 1\n"),
    ("--address 127.0.0.1:50051", "--address 127.0.0.1:{port} --allow-unready"),
    ("--server 127.0.0.1:50051 --dry-run --duration-s 10", "--server 127.0.0.1:{port} --dry-run --duration-s 1"),
    ("--server 127.0.0.1:50051 --episodes 3", "--server 127.0.0.1:{port} --episodes 1"),
    ("--episodes 100", "--episodes 3 --videos 1"),
    ("--out run --episodes 300", "--out run --episodes 4 --round-episodes 2"),
    ("curve run", "curve run --at 0 --episodes 2 --last-episodes 2"),
    ("--online online\n", "--online online --round-episodes 2\n"),
    ("--address 127.0.0.1:50052", "--address 127.0.0.1:{other_port}"),
    ("--server 127.0.0.1:50052 --episodes 50", "--server 127.0.0.1:{other_port} --episodes 2"),
)


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    """The reader's folder: the module of the environment and some episodes."""
    (tmp_path / "my_arm.py").write_text((Path(__file__).parent / "my_arm.py").read_text())
    (tmp_path / "my_episodes").mkdir()
    outcomes = [record_episode(tmp_path / "my_episodes" / f"{i:03}.npz", i) for i in range(EPISODES)]
    assert 0 < sum(outcomes) < EPISODES
    return tmp_path


def blocks() -> list[list[str]]:
    """Commands of each bash block after the two of `make`, in order, with the test's sizes."""
    text = (ROOT / "README.md").read_text()
    port = 30_000 + os.getpid() % 10_000
    found = ["\n".join(block.splitlines()) + "\n" for block in re.findall(r"```bash\n(.*?)```", text, re.S)][1:]
    joined = "\0".join(found)
    for shown, small in SMALLER:
        assert shown in joined, f"the README no longer says {shown!r}"
        joined = joined.replace(shown, small.format(port=port, other_port=port + 10_000))
    return [block.strip().splitlines() for block in joined.split("\0")]


def environment(folder: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}


def command(line: str) -> list[str]:
    words = shlex.split(line)
    assert words[0] == "steer", f"the README's commands are steer's, not {line!r}"
    return [sys.executable, "-m", "steer.cli.main", *words[1:]]


def run(line: str, folder: Path) -> str:
    done = subprocess.run(
        command(line), cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def complete(path: Path) -> None:
    """What the README asks its reader to do: replace every "unknown", and name the entries."""
    robot = json.loads(path.read_text())
    robot["action"] |= {
        "kind": "delta",
        "frame": "base",
        "reference": "commanded",
        "rotation": "rpy",
        "gripper": "none",
    }
    for axis, name in zip(robot["action"]["axes"], AXES, strict=True):
        axis |= {"name": name, "unit": "rad" if name == "dyaw" else "m"}
    robot["observation"]["arrays"][0]["names"] = list(ENTRIES)
    assert "unknown" not in json.dumps(robot)
    path.write_text(json.dumps(robot))


@pytest.fixture
def working(bench: Path) -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.send_signal(signal.SIGINT)
        # A server ends in order; a learner says that it was interrupted.
        assert process.wait(60) in (0, 130)


def learn(line: str, folder: Path, started: list[subprocess.Popen[str]]) -> None:
    """In the background: it publishes its start, and waits for episodes that others record."""
    process = subprocess.Popen(command(line), cwd=folder, env=environment(folder), text=True)
    started.append(process)
    run = folder / re.search(r"--out (\S+)", line).group(1)
    while not (run / "current.json").exists():
        assert process.poll() is None, f"the learner ended with {process.returncode}"
        time.sleep(0.1)


def serve(line: str, folder: Path, started: list[subprocess.Popen[str]]) -> None:
    process = subprocess.Popen(command(line), cwd=folder, env=environment(folder), text=True)
    started.append(process)
    with grpc.insecure_channel(re.search(r"--address (\S+)", line).group(1)) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while process.poll() is None:
            try:
                reply = stub.Check(health_pb2.HealthCheckRequest(), timeout=1, wait_for_ready=True)
            except grpc.RpcError:
                continue
            if reply.status == health_pb2.HealthCheckResponse.SERVING:
                return
    raise AssertionError(f"the server ended with {process.returncode}")


def test_the_readmes_commands_work(bench: Path, working: list[subprocess.Popen[str]]) -> None:
    said = []
    for lines in blocks():
        for line in lines:
            if line.startswith("steer serve"):
                serve(line, bench, working)
            elif "--actors 0" in line:
                learn(line, bench, working)
            else:
                said.append(run(line, bench))
            if "--draft" in line:
                complete(bench / "robot.json")
    text = "\n".join(said)
    assert "This critic may" in text
    result = Evaluation.read(bench / "eval" / "result.json")
    assert result.episodes == 3
    assert (bench / "eval" / "report.html").stat().st_size > 10_000
    assert list(json.loads((bench / "run" / "curve" / "curve.json").read_text())["points"][1]) != []
    assert json.loads(run("steer inspect online --json", bench))["episodes"] == 2
    inspected = run("steer inspect data --json", bench)
    assert json.loads(inspected)["episodes"] == EPISODES + 6
