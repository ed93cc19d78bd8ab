"""Episodes in processes: the same results whatever their number, and clear errors when one fails, dies or hangs."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from steer.errors import ConfigError, DeadlineError, MissingExtraError, SteerError, UnavailableError
from steer.evaluation.rollout import RolloutSettings
from steer.evaluation.runner import Job, Runner
from steer.evaluation.setup import Bench
from tests.evaluation.fakes import build
from tests.fakes import ROBOT

SETTINGS = RolloutSettings(num_samples=4, execute=4)
JOBS = [Job(seed, SETTINGS) for seed in (9, 3, 7, 5, 1)]


def missing_extra() -> Bench:
    raise MissingExtraError("pybullet", "sim", "this environment")


def test_the_number_of_workers_changes_nothing() -> None:
    with Runner(build, workers=1) as runner:
        alone = runner.run(JOBS)
    with Runner(build, workers=2) as runner:
        shared = runner.run(JOBS)
    assert [played.seed for played in alone] == [played.seed for played in shared] == [9, 3, 7, 5, 1]
    for one, other in zip(alone, shared, strict=True):
        np.testing.assert_array_equal(one.episode.actions, other.episode.actions)
        assert one.success == other.success


def test_a_runner_says_what_was_loaded_reports_progress_and_can_run_again() -> None:
    calls: list[tuple[int, int]] = []
    with Runner(build, workers=1) as runner:
        assert runner.facts.robot == ROBOT
        assert runner.facts.critic == "fake-critic-1"
        first = runner.run(JOBS[:2], lambda done, total: calls.append((done, total)))
        again = runner.run(JOBS[:2])
        assert runner.run([]) == []
    assert calls == [(1, 2), (2, 2)]
    np.testing.assert_array_equal(first[1].episode.actions, again[1].episode.actions)


def test_no_process_outlives_the_runner() -> None:
    with Runner(build, workers=2) as runner:
        runner.run(JOBS[:1])
    assert not multiprocessing.active_children()


def test_a_killed_worker_names_the_seed() -> None:
    with (
        pytest.raises(UnavailableError, match=r"seed 7 \(exit code -9\)"),
        Runner(partial(build, die_at=7), 2) as runner,
    ):
        runner.run(JOBS)
    assert not multiprocessing.active_children()


def test_a_failing_environment_names_the_seed_and_its_error() -> None:
    with pytest.raises(SteerError, match="seed 7: ValueError: the gripper fell off"):  # noqa: SIM117
        with Runner(partial(build, raise_at=7), workers=1) as runner:
            runner.run(JOBS)


def test_an_endless_episode_names_the_seed() -> None:
    with pytest.raises(DeadlineError, match="seed 7 took more than"):  # noqa: SIM117
        with Runner(partial(build, hang_at=7), workers=1, episode_timeout_s=0.5) as runner:
            runner.run([Job(7, SETTINGS)])


def test_an_error_while_loading_keeps_its_class_and_message() -> None:
    with pytest.raises(MissingExtraError, match=r"steer-robotics\[sim\]"), Runner(missing_extra, workers=1):
        pass


def test_a_negative_number_of_workers_is_refused() -> None:
    with pytest.raises(ConfigError, match="-1 workers"):
        Runner(build, workers=-1)


def test_ctrl_c_stops_everything_at_once(tmp_path: Path) -> None:
    """A real SIGINT to the process group while an episode hangs: the parent ends with KeyboardInterrupt, no worker is left."""
    script = tmp_path / "interrupted.py"
    script.write_text(
        "from functools import partial\n"
        "from steer.evaluation.rollout import RolloutSettings\n"
        "from steer.evaluation.runner import Job, Runner\n"
        "from tests.evaluation.fakes import build\n"
        "if __name__ == '__main__':\n"
        "    with Runner(partial(build, hang_at=7), workers=2) as runner:\n"
        "        print(*runner.pids, flush=True)\n"
        "        runner.run([Job(7, RolloutSettings(1))])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=environment,
    )
    assert process.stdout is not None
    workers = [int(pid) for pid in process.stdout.readline().split()]
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert len(workers) == 2
    assert process.returncode != 0
    assert errors.rstrip().endswith("KeyboardInterrupt")
    for pid in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
