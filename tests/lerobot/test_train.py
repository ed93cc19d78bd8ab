"""LeRobot's own DiffusionPolicy, trained on one of our stores in LeRobot's environment, and run here."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np

from policies.lerobot.environment import find_python
from steer.data import Episode, EpisodeStore
from steer.observation import ObservationSpec
from tests.contracts.policy_contract import draw, observe
from tests.lerobot.conftest import Start
from tests.policies import toys

TARGET = np.float32([0.08, 1.0])


def episode(rng: np.random.Generator) -> Episode:
    """Eight equal steps."""
    state = rng.normal(size=(9, 4)).astype(np.float32)
    rewards = np.zeros(8, np.float32)
    return Episode(
        {"state": state}, np.tile(TARGET, (8, 1)), rewards, True, False, success=True, success_source="simulator"
    )


def test_a_policy_trained_on_a_store_carries_its_robot_and_does_what_was_shown(tmp_path: Path, start: Start) -> None:
    robot = replace(toys.ROBOT, observation=ObservationSpec((toys.STATE,)))
    rng = np.random.default_rng(0)
    with EpisodeStore.create(tmp_path / "store", robot).writer() as writer:
        for _ in range(8):
            writer.add(episode(rng))
    out = tmp_path / "pretrained_model"
    recipe = [f"--store={tmp_path / 'store'}", f"--out={out}", "--robot_entries=[ee.]", "--down_dims=[16,32]"]
    recipe += ["--steps=200", "--batch_size=32", "--ema_decay=0.9"]
    subprocess.run([find_python(), "-m", "policies.lerobot.train", *recipe], check=True)
    policy = start(out)
    assert policy.spec.action == robot.action
    assert policy.spec.observation == robot.observation
    assert policy.spec.horizon == 8
    got = draw(policy, observe(policy, 1), 8, [3]).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(got / robot.action.high, TARGET / robot.action.high, atol=0.15)
