"""The command line as a whole: what it prints for a wrong word, and the commands that need little."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from steer.cli.main import COMMANDS
from steer.data.store import EpisodeStore


def steer(*words: object, timeout: float = 200.0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "steer.cli.main", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


@pytest.mark.parametrize("words", [(), ("colect",)])
def test_a_wrong_word_shows_what_there_is(words: tuple[str, ...]) -> None:
    done = steer(*words)
    assert done.returncode == 2
    for command in COMMANDS:
        assert command in done.stdout + done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    done = steer(command, "--help")
    assert done.returncode == 0, done.stderr
    assert f"steer {command}" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("inspect", "absent"), "absent: no such checkpoint folder"),
        (("inspect",), "nothing to inspect"),
        (("inspect", "--env", "absent-v0"), "absent-v0"),
        (("collect", "store", "--episodes", "0"), "--episodes is 0"),
        (("eval",), "give either a policy"),
        (("eval", "--policy", "absent"), "absent: no such checkpoint folder"),
        (("eval", "--policy", "nothing:here"), "unknown kind 'nothing'"),
        (("serve",), "nothing to serve"),
        (("run", "--robot", "nothing"), "unknown kind 'nothing' of robots"),
        (("train", "policy", "absent", "out"), "absent is not an episode store"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_two(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "steer.cli.main", *words], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 2
    assert "error: " in done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_collect_records_and_adds(tmp_path: Path) -> None:
    store = tmp_path / "episodes"
    for seed in (0, 2):
        done = steer("collect", store, "--episodes", 3 + seed // 2, "--seed", seed)
        assert done.returncode == 0, done.stderr
    assert "1 of these seeds were there already" in done.stdout
    records = EpisodeStore.open(store).records()
    assert [record.info["seed"] for record in records] == [0, 1, 2, 3, 4, 5]
    summary = json.loads(steer("inspect", store, "--json").stdout)
    assert summary["episodes"] == 6
    assert summary["robot"]["action"]["kind"] == "delta"


def test_collect_keeps_what_was_published_when_interrupted(tmp_path: Path) -> None:
    """Ctrl-C in the middle: whole episodes stay, the exit code says interrupted, no worker is left behind."""
    store = tmp_path / "episodes"
    command = [sys.executable, "-m", "steer.cli.main", "collect", str(store), "--episodes", "5000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("collect:"):
            break
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    records = EpisodeStore.open(store).records()
    assert [record.info["seed"] for record in records] == list(range(len(records)))
    assert records


def test_the_demo_ends_with_one_json_line(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    done = steer("demo", "--out", out, "--demonstrations", 45, "--steps", 30, "--pairs", 2, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert set(last) == {"base", "steered", "difference", "low", "high", "episodes", "seconds"}
    assert last["episodes"] == 2
    assert "small numbers" in done.stdout
    assert (out / "report" / "report.html").exists()


def test_the_demo_deletes_nothing_it_did_not_make(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    done = steer("demo", "--out", tmp_path)
    assert done.returncode == 2
    assert "holds something that no demo made" in done.stderr
    assert (tmp_path / "mine.txt").read_text() == "precious"
