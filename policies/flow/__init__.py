"""Flow matching: `FAMILY` is its entry in the registry. Torch is imported only when one is loaded or trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from policies.config import chunk_sampler, require_torch
from policies.flow.config import FlowConfig
from steer.model_name import ModelName
from steer.options import integer
from steer.registry import Family, Trainable

if TYPE_CHECKING:
    from policies.flow.objective import FlowObjective
    from policies.flow.policy import FlowPolicy
    from steer.checkpoints import Checkpoint
    from steer.data.frames import Frames


def load(name: ModelName) -> FlowPolicy:
    """`flow:PATH?device=cpu&inference_steps=8`."""
    require_torch("running a flow policy")
    from policies.flow.policy import FlowPolicy

    name.refuse_unknown("device", "inference_steps")
    steps = integer(name.options, "inference_steps", 0) if "inference_steps" in name.options else None
    return FlowPolicy.load(Path(name.place), name.options.get("device", "cpu"), steps)


def objective(config: FlowConfig, frames: Frames, seed: int = 0, start: Checkpoint | None = None) -> FlowObjective:
    """What trains a flow policy on these frames, or trains the one in `start` further."""
    require_torch("training a flow policy")
    from policies.flow.objective import FlowObjective

    return FlowObjective(config, frames, seed, start)


FAMILY = Family(
    kind="flow",
    summary="Rectified flow over action chunks, by Euler steps (Liu et al. 2023; Black et al. 2024)",
    load=load,
    trainable=Trainable(FlowConfig, objective, chunk_sampler),
)
