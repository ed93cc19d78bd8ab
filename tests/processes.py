"""`steer` commands as processes, with a toy policy, critic and robot that a plugin folder brings, for tests of faults."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).parents[1]
WAIT_S = 120.0

FAKES = '''
"""Registers the fakes of the tests as a stranger's package would."""
import os, time
from pathlib import Path
import numpy as np
from steer.registry import Family
from tests.fakes import FakeCritic, FakePolicy, FakeRobot

class BlockingPolicy(FakePolicy):
    def __init__(self):
        super().__init__()
        print("arithmetic on", os.environ["OMP_NUM_THREADS"], "threads", flush=True)

    def encode(self, observations):
        if "FAKE_BLOCK" in os.environ and Path(os.environ["FAKE_BLOCK"]).exists():
            print("blocked", flush=True)
            while Path(os.environ["FAKE_BLOCK"]).exists():
                time.sleep(0.01)
        return super().encode(observations)

POLICY = Family("toy", "", lambda name: BlockingPolicy())
CRITIC = Family("toy", "", lambda name: FakeCritic())

class LoggingRobot(FakeRobot):
    moves = 0

    def send(self, action):
        moving = bool(np.any(action))
        with open(os.environ["FAKE_SENT"], "a") as file:
            file.write("move\\n" if moving else "hold\\n")
        self.moves += moving
        if moving and self.moves == 6:
            print("six moves", flush=True)
        return super().send(action)

def create(place, options):
    return LoggingRobot(now=time.monotonic)
'''


def make_plugin(folder: Path) -> Path:
    """Fill a folder that, on the path, looks like an installed distribution with entry points."""
    (folder / "toy_plugin.py").write_text(FAKES)
    info = folder / "toy_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[steer.policies]\ntoy = toy_plugin:POLICY\n[steer.critics]\ntoy = toy_plugin:CRITIC\n"
        "[steer.robots]\ntoy = toy_plugin:create\n"
    )
    return folder


class Command:
    """One `steer` process whose lines can be waited for."""

    def __init__(self, plugin: Path, sent: Path, *words: str, **environment: str) -> None:
        env = {**os.environ, "PYTHONPATH": f"{plugin}:{ROOT}", "FAKE_SENT": str(sent), "COLUMNS": "200", **environment}
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-m", "steer.cli.main", *words],
            cwd=ROOT,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._new: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._new.put(line)
        self._new.put(None)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The first further line that matches."""
        while (line := self._new.get(timeout=WAIT_S)) is not None:
            self.lines.append(line)
            if match := re.search(pattern, line):
                return match
        raise AssertionError(f"no line matches {pattern!r}; the process wrote:\n{''.join(self.lines)}")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> tuple[int, str]:
        """Exit code and all output."""
        code = self.process.wait(WAIT_S)
        while (line := self._new.get(timeout=WAIT_S)) is not None:
            self.lines.append(line)
        return code, "".join(self.lines)


class Bench:
    """Starts commands and ends those that are left."""

    def __init__(self, plugin: Path, folder: Path) -> None:
        self._plugin, self.sent = plugin, folder / "sent"
        self.sent.touch()
        self._commands: list[Command] = []

    def steer(self, *words: str, **environment: str) -> Command:
        command = Command(self._plugin, self.sent, *words, **environment)
        self._commands.append(command)
        return command

    def serve(self, *words: str, address: str = "127.0.0.1:0", **environment: str) -> tuple[Command, str]:
        words = ("serve", "--policy", "toy:", "--critic", "toy:", "--address", address, *words)
        command = self.steer(*words, **environment)
        return command, command.wait_for(r"serving on (\S+),").group(1)

    def run(self, address: str, *words: str) -> Command:
        return self.steer("run", "--robot", "toy:", "--server", address, *words)

    def commands_sent(self) -> list[str]:
        return self.sent.read_text().split()

    def close(self) -> None:
        for command in self._commands:
            if command.process.poll() is None:
                command.process.kill()
            command.process.wait()
