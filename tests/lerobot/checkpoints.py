"""The golden checkpoints, and altered copies of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors.numpy import load_file, save_file

from steer.spec import Array

GOLDEN = Path(__file__).parent.parent / "golden" / "lerobot" / "policies"
DDIM = GOLDEN / "diffusion_state_ddim" / "pretrained_model"
ACT = GOLDEN / "act_state" / "pretrained_model"


def copy(source: Path, target: Path) -> Path:
    return Path(shutil.copytree(source, target))


def edit_weights(folder: Path, change: Callable[[dict[str, Array]], None]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")
