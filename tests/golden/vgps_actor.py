"""The actor of a V-GPS agent, for the comparison alone: scoring needs none, and V-GPS reports that it acts badly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from critics.vgps.config import NetworkConfig
from critics.vgps.encoder import Encoder
from critics.vgps.published import torch_axes, torch_name
from steer.spec import Array

LOWEST_STD, HIGHEST_STD = 1e-5, 10.0


class Actor(nn.Module):
    """tanh of a Gaussian: mean and log standard deviation are linear in the last hidden layer."""

    def __init__(self, critic: NetworkConfig, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.encoder = Encoder(critic.encoder)
        widths = (critic.encoder.features(critic.image_size), *hidden)
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(widths))
        self.mean = nn.Linear(hidden[-1], critic.action_size)
        self.log_std = nn.Linear(hidden[-1], critic.action_size)

    def forward(
        self, images: UInt8[Tensor, "b h w 3"], text: Float[Tensor, "b t"]
    ) -> tuple[Float[Tensor, "b a"], Float[Tensor, "b a"]]:
        """Mean and standard deviation before the tanh."""
        x = self.encoder(images, text)
        for layer in self.layers:
            x = self.encoder.act(layer(x))
        return self.mean(x), self.log_std(x).exp().clamp(LOWEST_STD, HIGHEST_STD)


def log_prob(mean: Tensor, std: Tensor, actions: Float[Tensor, "b a"]) -> Float[Tensor, " b"]:
    """Log-density of actions in (-1, 1)."""
    before = torch.atanh(actions)
    change = 2 * (math.log(2) - before - F.softplus(-2 * before))
    normal = -0.5 * ((before - mean) / std) ** 2 - std.log() - 0.5 * math.log(2 * math.pi)
    return (normal - change).sum(-1)


def actor_name(name: str) -> str:
    """Published name below `modules_actor` -> parameter here."""
    for published, ours in (("Dense_0/", "mean."), ("Dense_1/", "log_std.")):
        if name.startswith(published):
            return ours + ("weight" if name.endswith("kernel") else "bias")
    return torch_name(name)


def load_actor(arrays: Mapping[str, Array], critic: NetworkConfig) -> Actor:
    """The actor of published arrays."""
    depth = sum(name.startswith("network/Dense_") and name.endswith("/kernel") for name in arrays)
    hidden = tuple(arrays[f"network/Dense_{i}/kernel"].shape[-1] for i in range(depth))
    actor = Actor(critic, hidden)
    state = {
        actor_name(name): torch.from_numpy(value.transpose(torch_axes(name, value.ndim)).copy())
        for name, value in arrays.items()
    }
    actor.load_state_dict(state)
    return actor.eval()
