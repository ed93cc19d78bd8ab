"""One episode of pick-and-place by a real LeRobot policy, steered by one of our critics, through `steer serve`.

    python -m tests.interop.lerobot_episode [--policy PATH --critic PATH]

LeRobot's own code proposes, in a process of its environment that the server starts. Passes when the episode through gRPC ends and
is, action by action, the one in process; whether it succeeds depends on the models, which are hardly trained unless some are
given.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch
import tyro

from policies.lerobot.environment import find_python
from steer.evaluation.rollout import Rollout, RolloutSettings, rollout
from steer.evaluation.setup import Setup
from tests.interop.processes import server, small_models

ENVIRONMENT = "steer/PickPlace-v0"
RECIPE = ("--down_dims=[16,32]", "--steps=200", "--batch_size=64", "--ema_decay=0.9")


def main(policy: Path | None = None, critic: Path | None = None, seed: int = 100_000, samples: int = 8) -> int:
    """Play the episode twice and compare.

    Args:
        policy: A `pretrained_model` folder for the task; a hardly trained one is made unless given.
        critic: The critic that steers it.
        seed: Initial state.
        samples: K.
    """
    torch.set_num_threads(1)
    settings = RolloutSettings(samples, execute=4)
    with tempfile.TemporaryDirectory() as scratch:
        if policy is None or critic is None:
            policy, critic = _models(Path(scratch))
        name = f"lerobot:{policy.absolute()}"
        flags = ("--policy", name, "--critic", critic, "--allow-unready", "--deterministic", "--threads", 1)
        with server(*flags, "--address", "127.0.0.1:0", ready=r"serving on (\S+),") as address:
            far = _play(Setup(ENVIRONMENT, server=address), seed, settings)
        near = _play(Setup(ENVIRONMENT, name, str(critic)), seed, settings)
    same = np.array_equal(near.episode.actions, far.episode.actions)
    print(f"LeRobot through gRPC: {far.length} steps, success {far.success}, the episode in process: {same}")
    if not same:
        print(f"FAILED: in process {near.length} steps, success {near.success}: expected the same actions")
        return 1
    return 0


def _play(setup: Setup, seed: int, settings: RolloutSettings) -> Rollout:
    bench = setup()
    try:
        return rollout(bench.environment, bench.steering, seed, settings)
    finally:
        bench.close()


def _models(folder: Path) -> tuple[Path, Path]:
    """LeRobot's DiffusionPolicy and a critic, hardly trained."""
    store, _, critic = small_models(folder)
    out = folder / "pretrained_model"
    train = [find_python(), "-m", "policies.lerobot.train", f"--store={store}", f"--out={out}", *RECIPE]
    subprocess.run(train, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return out, critic


if __name__ == "__main__":
    raise SystemExit(tyro.cli(main))
