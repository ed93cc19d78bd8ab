"""Real processes: a full disk (the kernel's limit on file size stands in for it), a killed run, several processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from steer.training.state import latest_step, read_state

FULL_DISK = """
import resource, sys
from pathlib import Path
from rich.console import Console
from steer.errors import CheckpointError
from steer.training.loop import LoopConfig, train
from tests.training.toys import Mean, Noise

def fill(step):
    if step == 15:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

try:
    config = LoopConfig(30, log_every=100, save_every=10)
    train(Mean(on_step=fill, padding=25_000), Noise(), config, Path(sys.argv[1]), console=Console(quiet=True))
except CheckpointError as error:
    print("refused:", error)
"""

SLOW = """
import sys, time
from pathlib import Path
from rich.console import Console
from steer.training.loop import LoopConfig, train
from tests.training.toys import Mean, Noise

def say(step):
    if step == 25:
        print("go", flush=True)
    if step > 25:
        time.sleep(0.01)

config = LoopConfig(100_000, log_every=10, save_every=20)
train(Mean(on_step=say), Noise(), config, Path(sys.argv[1]), console=Console(quiet=True))
"""


def python(code: str, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_a_full_disk_is_explained_and_the_last_state_kept(tmp_path: Path) -> None:
    out, error = python(FULL_DISK, str(tmp_path / "run")).communicate(timeout=120)

    assert "refused:" in out, error
    assert "cannot save the training state" in out
    assert "the state of step 10 is intact: free space, then resume" in out
    step, state = read_state(tmp_path / "run" / "training")
    assert (step, state["objective"]["count"]) == (10, 10)
    assert [path.name for path in (tmp_path / "run" / "training").iterdir()] == ["step-000000010"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_state_and_says_how_to_go_on(tmp_path: Path, number: signal.Signals) -> None:
    process = python(SLOW, str(tmp_path / "run"))
    assert process.stdout is not None
    assert process.stdout.readline() == "go\n"

    process.send_signal(number)
    _, error = process.communicate(timeout=120)

    assert process.returncode != 0
    assert "run the same command with --resume" in error
    step = latest_step(tmp_path / "run" / "training")
    assert step is not None
    assert step >= 25
    assert read_state(tmp_path / "run" / "training")[1]["objective"]["count"] == step


def test_a_killed_run_keeps_its_last_periodic_state(tmp_path: Path) -> None:
    process = python(SLOW, str(tmp_path / "run"))
    assert process.stdout is not None
    assert process.stdout.readline() == "go\n"

    process.kill()
    process.communicate(timeout=120)

    step = latest_step(tmp_path / "run" / "training")
    assert step is not None
    assert step >= 20
    assert step % 20 == 0
    assert read_state(tmp_path / "run" / "training")[0] == step
