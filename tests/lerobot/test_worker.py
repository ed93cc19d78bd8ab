"""Workers that die, and checkpoints that cannot be run."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from policies.lerobot import load
from policies.lerobot.policy import LeRobotPolicy
from steer.errors import CheckpointError, SpecError, UnavailableError, UnsupportedError
from steer.model_name import ModelName
from steer.observation import Batch, Task
from tests.contracts.policy_contract import draw, observe
from tests.lerobot.checkpoints import ACT, DDIM, GOLDEN, copy, edit_weights
from tests.lerobot.conftest import Build, Start


@pytest.fixture(scope="module")
def policy(start: Start) -> LeRobotPolicy:
    return start(DDIM)


def refused(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(ModelName("lerobot", str(folder)))
    return str(caught.value)


def test_a_worker_that_dies_in_mid_episode_is_started_once_more(policy: LeRobotPolicy) -> None:
    batch = observe(policy, 1)
    before = draw(policy, batch, 4, [5])
    context, restarts = policy.encode(batch), policy.restarts
    os.kill(policy.worker_pid, signal.SIGKILL)
    with pytest.raises(UnavailableError, match=r"died on 'sample' \(exit code -9\)"):
        policy.sample(context, 4, np.array([5]))
    np.testing.assert_array_equal(draw(policy, batch, 4, [5]), before)
    assert policy.restarts == restarts + 1
    with pytest.raises(UnavailableError, match="encode it again"):
        policy.sample(context, 4, np.array([5]))


def test_the_instruction_may_be_empty_or_long(policy: LeRobotPolicy) -> None:
    one = observe(policy, 1)
    for text in ("", "pick up the cube " * 118):
        batch = Batch(one.arrays, one.mask, (Task(text),))
        np.testing.assert_array_equal(draw(policy, batch, 2, [1]), draw(policy, one, 2, [1]))


def test_an_image_of_another_size_is_refused_before_it_is_sent(start: Start, checkpoint: Build) -> None:
    policy = start(checkpoint(GOLDEN / "diffusion_image_formula"))
    one = observe(policy, 1)
    key = next(array.name for array in policy.spec.observation.arrays if array.dtype == "uint8")
    larger = {**one.arrays, key: np.zeros((1, policy.spec.observation.window, 80, 64, 3), np.uint8)}
    with pytest.raises(SpecError, match=rf"{key}: got shape .*80, 64, 3.*expected .*64, 64, 3"):
        policy.encode(Batch(larger, one.mask, one.tasks))


def test_a_goal_image_is_refused(policy: LeRobotPolicy) -> None:
    one = observe(policy, 1)
    with pytest.raises(UnsupportedError, match="goal image"):
        policy.encode(Batch(one.arrays, one.mask, (Task("", np.zeros((8, 8, 3), np.uint8)),)))


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    folder = copy(ACT, tmp_path / "model")
    edit_weights(folder, lambda weights: weights.pop("model.action_head.bias"))
    assert "model.action_head.bias" in refused(folder)


def test_a_misshapen_tensor_is_named(tmp_path: Path) -> None:
    folder = copy(ACT, tmp_path / "model")
    edit_weights(folder, lambda weights: weights.update({"model.action_head.bias": np.zeros(9, np.float32)}))
    assert "model.action_head.bias" in refused(folder)


def test_the_worker_leaves_with_a_parent_that_was_killed() -> None:
    code = (
        "import sys, time; from policies.lerobot import load; from steer.model_name import ModelName\n"
        f"policy = load(ModelName('lerobot', {str(DDIM)!r}))\n"
        "print(policy.worker_pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = os.pidfd_open(int(parent.stdout.readline()))
    parent.kill()
    parent.communicate()
    try:
        assert select.select([worker], [], [], 300.0)[0], "the worker outlived its parent"
    finally:
        os.close(worker)
