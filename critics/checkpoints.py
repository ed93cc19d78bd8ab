"""Weights of our critics' networks, out of a checkpoint and into one."""

from __future__ import annotations

import torch
from torch import nn

from steer.checkpoints import Checkpoint, require_weights
from steer.spec import Array


def load_weights(network: nn.Module, checkpoint: Checkpoint) -> None:
    """Give the network a checkpoint's weights. Raises `CheckpointError` unless they are exactly its tensors."""
    require_weights(checkpoint, {name: tuple(value.shape) for name, value in network.state_dict().items()})
    # A checkpoint's arrays are read-only, which torch warns of.
    network.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in checkpoint.weights.items()})


def weights_of(network: nn.Module) -> dict[str, Array]:
    """The network's tensors as a checkpoint keeps them."""
    return {name: value.detach().cpu().numpy() for name, value in network.state_dict().items()}
