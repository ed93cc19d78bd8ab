"""Diffusion policy: `FAMILY` is its entry in the registry. Torch is imported only when one is loaded or trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from policies.diffusion.config import DiffusionConfig
from steer.data.sampling import ChunkSampler
from steer.errors import MissingExtraError
from steer.model_name import ModelName
from steer.options import integer
from steer.registry import Family, Trainable

if TYPE_CHECKING:
    from policies.diffusion.objective import DiffusionObjective
    from policies.diffusion.policy import DiffusionPolicy
    from steer.data.frames import Frames


def load(name: ModelName) -> DiffusionPolicy:
    """`diffusion:PATH?device=cpu&inference_steps=8`."""
    _require_torch("running a diffusion policy")
    from policies.diffusion.policy import DiffusionPolicy

    name.refuse_unknown("device", "inference_steps")
    steps = integer(name.options, "inference_steps", 0) if "inference_steps" in name.options else None
    return DiffusionPolicy.load(Path(name.place), name.options.get("device", "cpu"), steps)


def objective(config: DiffusionConfig, frames: Frames, seed: int = 0) -> DiffusionObjective:
    """What trains a diffusion policy on these frames."""
    _require_torch("training a diffusion policy")
    from policies.diffusion.objective import DiffusionObjective

    return DiffusionObjective(config, frames, seed)


def sampler(config: DiffusionConfig, frames: Frames, seed: int = 0) -> ChunkSampler:
    """The chunks that the objective expects, with the keys that the policy sees."""
    return ChunkSampler(frames, config.horizon, config.window, config.batch_size, seed, config.keys)


def _require_torch(purpose: str) -> None:
    from importlib.util import find_spec

    if find_spec("torch") is None:
        raise MissingExtraError("torch", "train", purpose)


FAMILY = Family(
    kind="diffusion",
    summary="DDIM over action chunks from states or images (Chi et al. 2023)",
    load=load,
    trainable=Trainable(DiffusionConfig, objective, sampler),
)
