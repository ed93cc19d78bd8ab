"""Diffusion policy: `FAMILY` is its entry in the registry. Torch is imported only when one is loaded or trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from policies.config import chunk_sampler, require_torch
from policies.diffusion.config import DiffusionConfig
from steer.model_name import ModelName
from steer.options import integer
from steer.registry import Family, Trainable

if TYPE_CHECKING:
    from policies.diffusion.objective import DiffusionObjective
    from policies.diffusion.policy import DiffusionPolicy
    from steer.checkpoints import Checkpoint
    from steer.data.frames import Frames


def load(name: ModelName) -> DiffusionPolicy:
    """`diffusion:PATH?device=cpu&inference_steps=8`."""
    require_torch("running a diffusion policy")
    from policies.diffusion.policy import DiffusionPolicy

    name.refuse_unknown("device", "inference_steps")
    steps = integer(name.options, "inference_steps", 0) if "inference_steps" in name.options else None
    return DiffusionPolicy.load(Path(name.place), name.options.get("device", "cpu"), steps)


def objective(
    config: DiffusionConfig, frames: Frames, seed: int = 0, start: Checkpoint | None = None
) -> DiffusionObjective:
    """What trains a diffusion policy on these frames, or trains the one in `start` further."""
    require_torch("training a diffusion policy")
    from policies.diffusion.objective import DiffusionObjective

    return DiffusionObjective(config, frames, seed, start)


FAMILY = Family(
    kind="diffusion",
    summary="DDIM over action chunks from states or images (Chi et al. 2023)",
    load=load,
    trainable=Trainable(DiffusionConfig, objective, chunk_sampler),
)
