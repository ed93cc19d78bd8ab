"""What is checked of a checkpoint folder before anything of it is loaded. Knows no LeRobot; used on both sides."""

from __future__ import annotations

from pathlib import Path

from policies.lerobot.features import read_json, read_sidecar
from policies.lerobot.steps import POST, PRE, read_steps
from steer.errors import CheckpointError

WEIGHTS = "model.safetensors"
KINDS = ("diffusion", "act", "vqbet", "smolvla", "pi0", "pi05", "pi0_fast")
"""Policy types that are run, see `policies.lerobot.sampling`."""


def check_folder(folder: Path) -> str:
    """The policy's type. Raises `CheckpointError` for what is missing or not run, `SpecError` for a sidecar that is not one."""
    content = read_json(folder / "config.json")
    kind = content.get("type") if isinstance(content, dict) else None
    if kind not in KINDS:
        raise CheckpointError(f"{folder}: policy type {kind!r} is not run here, expected one of {list(KINDS)}")
    if not (folder / PRE).exists():
        raise CheckpointError(
            f"{folder}: has no {PRE}: checkpoints older than LeRobot 0.4 keep their statistics among the weights, "
            "convert it with LeRobot's migration command"
        )
    if not (folder / WEIGHTS).exists():
        raise CheckpointError(f"{folder}: {WEIGHTS} is missing: copy the checkpoint again (adapters alone are not run)")
    for pipeline in (PRE, POST):
        read_steps(folder / pipeline)
    read_sidecar(folder)
    return str(kind)
