"""Which head an OpenVLA-OFT folder has, and how it is built from its files."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from policies.openvla.model import OpenVlaModel
from policies.openvla.oft import DiffusionHead, Layout, ParallelTokenHead, RegressionHead
from policies.openvla.oft_modules import NoiseModule, RegressionModule, ToEmbedding, fill, part_file, read_part
from policies.openvla.tokens import ActionBins
from steer.errors import CheckpointError

# Chunk lengths that no file states, by the number of action axes (LIBERO's and ALOHA's constants).
_HORIZONS = {7: 8, 14: 25}


def is_oft(path: Path) -> bool:
    """Whether the folder holds an action head. Raises `CheckpointError` for one whose vision is conditioned on the text."""
    if part_file(path, "vision_backbone") is not None:
        raise CheckpointError(
            f"{path}: vision_backbone--*.pt holds vision towers with FiLM, which are not run here: use a checkpoint without"
        )
    return part_file(path, "action_head") is not None


def default_horizon(axes: int, path: Path) -> int:
    """H of the published models with so many axes; raises `CheckpointError` for another number."""
    if axes not in _HORIZONS:
        raise CheckpointError(f"{path}: nothing states its chunk length for {axes} axes: give ?horizon=")
    return _HORIZONS[axes]


def load_proprio(path: Path, model: OpenVlaModel) -> ToEmbedding | None:
    """The projector of the proprioception, if the folder has one."""
    file = part_file(path, "proprio_projector")
    return None if file is None else _projector(file, model)


def load_head(
    path: Path, layout: Layout, bins: ActionBins, diffusion_steps: int = 50, top_k: int = 0
) -> RegressionHead | DiffusionHead | ParallelTokenHead:
    """The head of the folder: L1, diffusion, or tokens where there is no file."""
    file = part_file(path, "action_head")
    if file is None:
        return ParallelTokenHead(layout, bins, top_k)
    noisy = part_file(path, "noisy_action_projector")
    with torch.device("meta"):
        module = (RegressionModule if noisy is None else NoiseModule)(layout.width, layout.axes)
    _fill(module, file, layout.model)
    if isinstance(module, RegressionModule):
        return RegressionHead(layout, module)
    assert noisy is not None
    return DiffusionHead(layout, module, _projector(noisy, layout.model), diffusion_steps)


def _projector(file: Path, model: OpenVlaModel) -> ToEmbedding:
    tensors = read_part(file)
    weight = tensors.get("fc1.weight")
    if weight is None or weight.ndim != 2:
        raise CheckpointError(f"{file}: has no matrix fc1.weight; it has {sorted(tensors)[:5]}")
    with torch.device("meta"):
        projector = ToEmbedding(weight.shape[1], model.language_model.config.hidden_size)
    fill(projector, tensors, file, model.device, model.dtype)
    return projector


def _fill(module: nn.Module, file: Path, model: OpenVlaModel) -> None:
    fill(module, read_part(file), file, model.device, model.dtype)
