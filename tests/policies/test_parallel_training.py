"""Two real processes share every batch and come to the weights of one."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from rich.console import Console

from policies.diffusion.objective import DiffusionObjective
from steer.checkpoints import read_checkpoint
from steer.data.sampling import ChunkSampler
from steer.training.loop import LoopConfig, train
from tests.policies import toys


def run(out: Path) -> None:
    data = toys.random_frames()
    sampler = ChunkSampler(data, 4, 1, 64, 0)
    train(DiffusionObjective(toys.SMALL, data), sampler, LoopConfig(20), out, console=Console(quiet=True))


def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    process = subprocess.run(
        [*launch, "-m", "tests.policies.test_parallel_training", str(tmp_path / "two")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    run(tmp_path / "one")

    one, two = read_checkpoint(tmp_path / "one").weights, read_checkpoint(tmp_path / "two").weights

    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_allclose(two[name], one[name], atol=1e-6)


if __name__ == "__main__":
    run(Path(sys.argv[1]))
