"""A full disk under a learner: it says so and ends, and goes on from its last state when there is room again."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path

from steer.cli.main import main
from steer.data.store import EpisodeStore
from steer.online.publish import Versions
from tests.evaluation.fakes import ENV_ID

WAIT_S = 300.0


def test_a_full_disk_ends_the_learner_and_a_resumed_one_goes_on(models: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    sizes = ("--round-episodes", "2", "--base-samples", "2", "--student-samples", "2", "--batch-size", "16")
    words = [
        *("finetune", "--policy", str(models / "policy"), "--critic", str(models / "critic"), "--env", ENV_ID),
        *("--offline", str(models / "episodes"), "--out", str(run), *sizes),
        *("--policy-batch-size", "16", "--save-every", "5", "--utd", "2"),
    ]
    # More than it can play: it lives until the disk is full.
    learner = subprocess.Popen(
        [sys.executable, "-m", "steer.cli.main", *words, "--episodes", "100000"], stderr=subprocess.PIPE, text=True
    )
    try:
        end = time.monotonic() + WAIT_S
        while not (run / "versions" / "000001").exists():
            assert learner.poll() is None
            assert time.monotonic() < end
            time.sleep(0.02)
        _, hard = resource.prlimit(learner.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(learner.pid, resource.RLIMIT_FSIZE, (2000, hard))
        _, told = learner.communicate(timeout=WAIT_S)
    finally:
        learner.kill()

    assert learner.returncode == 2, told
    assert "free space, then resume" in told
    assert "Traceback" not in told
    published = [record.id for record in EpisodeStore.open(run / "episodes").records()]

    wanted = len(published) + 2
    main([*words, "--resume", "--episodes", str(wanted)])

    records = EpisodeStore.open(run / "episodes").records()
    assert [record.id for record in records][: len(published)] == published
    assert [record.info["seed"] for record in records] == list(range(200_000, 200_000 + wanted))
    assert Versions(run).current().episodes == wanted
