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
from steer.online.publish import Versions
from tests.online.toys import Run

SMALL: dict[str, dict[str, Any]] = {
    "flow": {"hidden": 16, "expansion": 16, "blocks": 1},
    "openvla": {"hidden": 16, "layers": 1, "heads": 2, "expansion": 16, "bins": 16},
}


@pytest.mark.parametrize("kind", SMALL)
def test_pa_rl_improves_it(models: Path, tmp_path: Path, kind: str) -> None:
    trainable = registry.family(registry.POLICIES, kind).trainable
    assert trainable is not None
    frames = load_frames(EpisodeStore.open(models / "episodes"))
    trainable.objective(trainable.config(**SMALL[kind]), frames, seed=0).save(tmp_path / "start")

    run = Run(models, tmp_path / "run", policy=tmp_path / "start", improve="pa-rl")
    run.learner.run(2)

    versions = Versions(tmp_path / "run")
    one, two = (read_checkpoint(versions.folder(n) / "policy") for n in (0, 1))
    assert (one.kind, one.spec) == (two.kind, two.spec)
    assert not all(np.array_equal(one.weights[name], two.weights[name]) for name in one.weights)
    assert run.rounds[0].policy_updates == 4
    registry.policy(str(versions.folder(1) / "policy"))
