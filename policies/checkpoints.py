"""Reading our own checkpoints: a folder to its typed parts, and its weights into a network."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from policies.config import TrainingConfig
from steer.checkpoints import Checkpoint, read_checkpoint, require_kind, require_weights
from steer.policy import PolicySpec
from steer.serial import from_json

C = TypeVar("C", bound=TrainingConfig)


def open_checkpoint(path: Path, kind: str, config: type[C]) -> tuple[Checkpoint, C, PolicySpec]:
    """A verified checkpoint folder of a kind, with its configuration and spec in their types."""
    checkpoint = read_checkpoint(path)
    require_kind(checkpoint, kind)
    spec = from_json(PolicySpec, checkpoint.spec, f"{path}: spec")
    return checkpoint, from_json(config, checkpoint.config, f"{path}: config"), spec


def load_weights(network: nn.Module, checkpoint: Checkpoint) -> None:
    """Give the network a checkpoint's weights. Raises `CheckpointError` unless they are exactly its tensors."""
    require_weights(checkpoint, {name: tuple(value.shape) for name, value in network.state_dict().items()})
    network.load_state_dict({name: torch.from_numpy(value) for name, value in checkpoint.weights.items()})
