"""From the names and layouts of published (Flax) parameters to those of the torch modules here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from steer.errors import CheckpointError
from steer.spec import Array

_RULES = (
    (r"^encoder/encoder/", "encoder/"),
    (r"(?:Bottleneck)?ResNetBlock_(\d+)/", r"blocks/\1/"),
    (r"/Conv_(\d+)/", r"/convs/\1/"),
    (r"/(?:MyGroupNorm|LayerNorm)_(\d+)/", r"/norms/\1/"),
    (r"FilmConditioning_(\d+)/Dense_0/", r"conditions/\1/scale/"),
    (r"FilmConditioning_(\d+)/Dense_1/", r"conditions/\1/shift/"),
    (r"SpatialSoftmax_0/softmax_temperature$", "pooling/temperature"),
    (r"SpatialLearnedEmbeddings_0/kernel$", "pooling/kernel"),
    (r"^network/Dense_(\d+)/", r"layers/\1/"),
    (r"^network/norms/", "norms/"),
    (r"^encoder/Dense_(\d+)/", r"encoder/conditions/\1/scale/"),
    (r"^Dense_0/", "head/"),
    (r"(?<!pooling)/(?:kernel|scale)$", "/weight"),
)


def torch_name(name: str) -> str:
    """`encoder/encoder/ResNetBlock_0/Conv_1/kernel` -> `encoder.blocks.0.convs.1.weight` (names below `modules_critic`)."""
    for pattern, replacement in _RULES:
        name = re.sub(pattern, replacement, name)
    return name.replace("/", ".")


def torch_axes(name: str, ndim: int) -> tuple[int, ...]:
    """Order in which torch wants the axes of the published array `name`: HWIO becomes OIHW, (in, out) becomes (out, in)."""
    if name.endswith("kernel") and "SpatialLearnedEmbeddings" not in name:
        if ndim == 4:
            return (3, 2, 0, 1)
        if ndim == 2:
            return (1, 0)
    return tuple(range(ndim))


def to_torch(arrays: Iterable[tuple[str, Array]]) -> dict[str, Tensor]:
    """Tensors under the names that they have here."""
    return {torch_name(name): _tensor(name, value) for name, value in arrays}


def put(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Make `tensors` the parameters of a module, without a copy; raises `CheckpointError` unless exactly these are there."""
    wanted = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    missing, extra = sorted(set(wanted) - set(tensors)), sorted(set(tensors) - set(wanted))
    if missing or extra:
        raise CheckpointError(
            f"parameters do not fit a V-GPS value function: missing {missing[:5]}, unexpected {extra[:5]}"
        )
    for name, shape in wanted.items():
        if tuple(tensors[name].shape) != shape:
            raise CheckpointError(f"parameter {name} has shape {tuple(tensors[name].shape)}, expected {shape}")
    module.load_state_dict(tensors, assign=True)


def _tensor(name: str, value: Array) -> Tensor:
    return torch.from_numpy(np.array(value.transpose(torch_axes(name, value.ndim)), np.float32, order="C"))
