"""`steer train` on a store of toy episodes, through the command line."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from steer import registry
from steer.checkpoints import read_checkpoint
from steer.cli.main import main
from steer.data.episode import Episode
from steer.data.store import EpisodeStore
from steer.observation import ObservationSpec
from tests.policies import toys

SMALL = [
    "--hidden",
    "32",
    "--expansion",
    "64",
    "--blocks",
    "1",
    "--batch-size",
    "32",
    "--warmup-steps",
    "5",
    "--threads",
    "1",
]
SMALL_CRITIC = [
    "--hidden",
    "16",
    "16",
    "--batch-size",
    "32",
    "--num-candidates",
    "4",
    "--features",
    "raw",
    "--threads",
    "1",
]


def episode(rng: np.random.Generator, good: bool) -> Episode:
    """Eight steps along x; good ones go right, and end with a reward."""
    x = np.arange(9, dtype=np.float32) * (0.1 if good else -0.1)
    state = np.stack([x, rng.normal(0, 0.01, 9), 1 - x, np.zeros(9)], axis=-1).astype(np.float32)
    actions = np.tile(np.float32([0.08 if good else -0.08, 1.0]), (8, 1))
    rewards = np.zeros(8, np.float32)
    rewards[-1] = good
    return Episode({"state": state}, actions, rewards, good, not good, success=good, success_source="simulator")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "store"
    rng = np.random.default_rng(0)
    robot = replace(toys.ROBOT, observation=ObservationSpec((toys.STATE,)))
    with EpisodeStore.create(path, robot).writer() as writer:
        for number in range(60):
            writer.add(episode(rng, good=number % 2 == 0))
    return path


@pytest.fixture(scope="module")
def policy(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "policy"
    main(["train", "policy", str(store), str(out), "--steps", "30", *SMALL])
    return out


def test_every_hyper_parameter_of_the_recipe_is_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "policy", "--help"])

    text = capsys.readouterr().out
    for flag in ("--horizon", "--near-field-m", "--ema-decay", "--inference-steps", "--resume", "--threads"):
        assert flag in text


def test_a_policy_is_trained_from_a_store(policy: Path) -> None:
    loaded = registry.policy(str(policy))

    assert loaded.spec.observation.keys == ("state",)
    assert loaded.spec.action == toys.ACTION
    config = read_checkpoint(policy).config
    assert (config["hidden"], config["steps"], config["horizon"]) == (32, 30, 4)


def test_a_critic_is_trained_and_judged(
    store: Path, policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--policy", str(policy), "--steps", "30", "--held-out", "0.5", *SMALL_CRITIC]
    main(["train", "critic", str(store), str(tmp_path / "q"), *arguments])

    last = capsys.readouterr().out.strip().splitlines()[-1]
    judged = read_checkpoint(tmp_path / "q").documents["verdict"]
    assert last.startswith("This critic may steer: " if judged["may_steer"] else "This critic may not steer: ")
    assert judged["reasons"][0] in last
    assert judged["figures"]["episodes"] == 30
    assert registry.critic(str(tmp_path / "q")).spec.prefixes == (4,)


def test_a_critic_with_too_little_to_go_by_may_not_steer(
    store: Path, policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["train", "critic", str(store), str(tmp_path / "q"), "--policy", str(policy), "--steps", "2", *SMALL_CRITIC])

    assert "This critic may not steer: held-out episodes: 6, at least 30 are needed" in capsys.readouterr().out


def test_a_finished_run_is_refused_before_any_work(
    store: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", "policy", str(store), str(policy), *SMALL])

    assert stop.value.code == 2
    assert "holds a finished run: choose another folder, or --overwrite it" in capsys.readouterr().err


def test_a_policy_for_another_robot_is_refused(
    policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slower = replace(toys.ROBOT, action=replace(toys.ACTION, rate_hz=10.0), observation=ObservationSpec((toys.STATE,)))
    with EpisodeStore.create(tmp_path / "store", slower).writer() as writer:
        writer.add(episode(np.random.default_rng(0), good=True))

    with pytest.raises(SystemExit):
        main(["train", "critic", str(tmp_path / "store"), str(tmp_path / "q"), "--policy", str(policy)])

    assert "rate_hz" in capsys.readouterr().err


def test_an_interrupted_training_is_resumed_to_the_same_weights(store: Path, tmp_path: Path) -> None:
    arguments = [*SMALL, "--steps", "400", "--log-every", "20", "--save-every", "40"]
    main(["train", "policy", str(store), str(tmp_path / "whole"), *arguments])
    command = [
        sys.executable,
        "-m",
        "steer.cli.main",
        "train",
        "policy",
        str(store),
        str(tmp_path / "parts"),
        *arguments,
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    training = tmp_path / "parts" / "training"
    while process.poll() is None and not list(training.glob("step-*")):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=120)

    assert process.returncode == 130, error
    assert "run the same command with --resume to go on" in error
    assert not (tmp_path / "parts" / "manifest.json").exists()
    main(["train", "policy", str(store), str(tmp_path / "parts"), *arguments, "--resume"])
    versions = {
        json.loads((tmp_path / name / "manifest.json").read_text())["weights.safetensors"]
        for name in ("whole", "parts")
    }
    assert len(versions) == 1
