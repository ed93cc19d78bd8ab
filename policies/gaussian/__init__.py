"""Gaussian policy: `FAMILY` is its entry in the registry. Torch is imported only when one is loaded or trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from policies.config import chunk_sampler, require_torch
from policies.gaussian.config import GaussianConfig
from steer.model_name import ModelName
from steer.registry import Family, Trainable

if TYPE_CHECKING:
    from policies.gaussian.objective import GaussianObjective
    from policies.gaussian.policy import GaussianPolicy
    from steer.checkpoints import Checkpoint
    from steer.data.frames import Frames


def load(name: ModelName) -> GaussianPolicy:
    """`gaussian:PATH?device=cpu`."""
    require_torch("running a Gaussian policy")
    from policies.gaussian.policy import GaussianPolicy

    name.refuse_unknown("device")
    return GaussianPolicy.load(Path(name.place), name.options.get("device", "cpu"))


def objective(
    config: GaussianConfig, frames: Frames, seed: int = 0, start: Checkpoint | None = None
) -> GaussianObjective:
    """What trains a Gaussian policy on these frames, or trains the one in `start` further."""
    require_torch("training a Gaussian policy")
    from policies.gaussian.objective import GaussianObjective

    return GaussianObjective(config, frames, seed, start)


FAMILY = Family(
    kind="gaussian",
    summary="A Gaussian over the action chunk: its mean, and samples around it",
    load=load,
    trainable=Trainable(GaussianConfig, objective, chunk_sampler),
)
