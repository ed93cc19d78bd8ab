"""LeRobot's checkpoints give LeRobot's own numbers."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from steer.spec import Array
from tests.golden.compare_lerobot import compare_case
from tests.lerobot.checkpoints import GOLDEN, edit_weights
from tests.lerobot.conftest import Build, Start

CASES = sorted(GOLDEN.iterdir())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_checkpoint_gives_lerobots_outputs(case: Path, start: Start, checkpoint: Build) -> None:
    folder = checkpoint(case)
    found = list(compare_case(case, folder, start(folder)))
    assert len(found) >= 4
    assert [one for one in found if not one.passed] == []


def test_one_changed_weight_is_seen(tmp_path: Path, start: Start) -> None:
    case = Path(shutil.copytree(GOLDEN / "diffusion_state_ddim", tmp_path / "case"))

    def nudge(weights: dict[str, Array]) -> None:
        weights["diffusion.unet.final_conv.1.bias"] += np.float32(1e-3)

    edit_weights(case / "pretrained_model", nudge)
    found = compare_case(case, case / "pretrained_model", start(case / "pretrained_model"))
    assert {"first chunk, normalised", "candidates"} <= {one.quantity for one in found if not one.passed}
