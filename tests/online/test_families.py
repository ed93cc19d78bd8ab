"""Every family that is trained here is improved by the same code, from its own supervised loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steer import registry
from steer.checkpoints import read_checkpoint
from steer.data.frames import load_frames
from steer.data.store import EpisodeStore
from steer.online.config import OnlineConfig
from steer.online.publish import Versions
from steer.online.start import Start
from steer.training.loop import TrainingInterrupted
from tests.online.toys import Run

SMALL: dict[str, dict[str, Any]] = {
    "flow": {"hidden": 16, "expansion": 16, "blocks": 1},
    "openvla": {"hidden": 16, "layers": 1, "heads": 2, "expansion": 16, "bins": 16},
}


def make_start(models: Path, folder: Path, kind: str) -> None:
    """An untrained policy of this kind, for the robot of the toys."""
    trainable = registry.family(registry.POLICIES, kind).trainable
    assert trainable is not None
    frames = load_frames(EpisodeStore.open(models / "episodes"))
    trainable.objective(trainable.config(**SMALL[kind]), frames, seed=0).save(folder)


@pytest.mark.parametrize("kind", SMALL)
def test_pa_rl_improves_it(models: Path, tmp_path: Path, kind: str) -> None:
    make_start(models, tmp_path / "start", kind)

    run = Run(models, tmp_path / "run", policy=tmp_path / "start", improve="pa-rl")
    run.learner.run(2)

    versions = Versions(tmp_path / "run")
    one, two = (read_checkpoint(versions.folder(n) / "policy") for n in (0, 1))
    assert (one.kind, one.spec) == (two.kind, two.spec)
    assert not all(np.array_equal(one.weights[name], two.weights[name]) for name in one.weights)
    assert run.rounds[0].policy_updates == 4
    registry.policy(str(versions.folder(1) / "policy"))


@pytest.mark.parametrize("kind", SMALL)
def test_it_learns_as_it_was_trained_unless_told_otherwise(models: Path, tmp_path: Path, kind: str) -> None:
    make_start(models, tmp_path / "start", kind)
    trained = read_checkpoint(tmp_path / "start").config

    def start(config: OnlineConfig) -> Start:
        return Start.load(str(tmp_path / "start"), str(models / "critic"), config)

    default = start(OnlineConfig())
    assert default.policy_batch_size == trained["batch_size"]
    assert default.policy_config.learning_rate == trained["learning_rate"]
    assert start(OnlineConfig(policy_batch_size=7)).policy_batch_size == 7
    assert start(OnlineConfig(policy_learning_rate=0.5)).policy_config.learning_rate == 0.5


@pytest.mark.parametrize("kind", SMALL)
def test_it_goes_on_exactly_after_a_stop_among_its_updates(models: Path, tmp_path: Path, kind: str) -> None:
    make_start(models, tmp_path / "start", kind)

    def run(name: str, stop_after: int | None = None) -> Run:
        made = Run(models, tmp_path / name, policy=tmp_path / "start", improve="pa-rl", policy_utd=2.0)
        if stop_after is not None:
            made.learner._stop = lambda: made.learner.progress.policy_updates >= stop_after
        return made

    run("whole").learner.run(2)
    with pytest.raises(TrainingInterrupted):
        run("cut", stop_after=3).learner.run(2)
    again = run("cut")
    again.learner.resume()
    again.learner.run(2)

    assert again.learner.progress.policy_updates == 8
    one, two = (read_checkpoint(Versions(tmp_path / n).folder(1) / "policy").weights for n in ("whole", "cut"))
    assert all(np.array_equal(one[key], two[key]) for key in one)
