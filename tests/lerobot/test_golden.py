"""LeRobot's checkpoints give LeRobot's own numbers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.golden.compare_lerobot import compare_case
from tests.lerobot.checkpoints import GOLDEN, edit_json, edit_weights


def test_what_is_stored_equals_lerobots_outputs() -> None:
    from tests.golden.compare_lerobot import compare

    found = list(compare(GOLDEN.parent))
    assert {one.source for one in found} == {path.name for path in GOLDEN.iterdir()}
    assert [one for one in found if not one.passed] == []


@pytest.fixture
def case(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / "diffusion_state_ddim", tmp_path / "case"))


def failed(case: Path) -> set[str]:
    return {one.quantity for one in compare_case(case, case / "pretrained_model") if not one.passed}


def test_one_changed_weight_is_seen(case: Path) -> None:
    def nudge(weights: dict[str, object]) -> None:
        weights["diffusion.unet.final_conv.1.bias"] += 1e-3  # type: ignore[operator]

    edit_weights(case / "pretrained_model", nudge)  # type: ignore[arg-type]
    assert {"first chunk, normalised", "candidates"} <= failed(case)


def test_another_number_of_denoising_steps_is_seen(case: Path) -> None:
    edit_json(case / "pretrained_model" / "config.json", lambda config: config.update(num_inference_steps=4))
    assert "first chunk, normalised" in failed(case)
