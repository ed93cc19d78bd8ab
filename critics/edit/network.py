"""`EditNetwork`: a Gaussian over bounded edits of a chunk (EXPO, Dong et al. 2025, arXiv 2507.07986).

    a' = clip(a + scale * tanh(mu(s, a) + sigma(s, a) * noise), bounds)      where every axis spans [-1, 1]

It sees what the critic sees: the normalised state, and the chunk as the poses that it leads to. Before training mu is 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from critics.features import Raw, ReachedPoses
from critics.networks import Member
from critics.q_network import State
from steer.action import ActionSpec
from steer.errors import ConfigError

# Soft actor-critic's usual limits, narrowed: within tanh a wider Gaussian is no longer one.
_LOG_STD_LOW, _LOG_STD_HIGH = -5.0, 1.0


@dataclass(frozen=True)
class EditConfig:
    """How far edits reach, and how they are learnt."""

    scale: float = 0.03
    """Largest edit of any number of a chunk, in units where every axis spans [-1, 1]. [EXPO: chosen per task]"""
    hidden: tuple[int, ...] = (256, 256)
    """Widths of the hidden layers."""
    learning_rate: float = 3e-4
    """Adam, of the network. [EXPO, RLPD: 3e-4]"""
    temperature_learning_rate: float = 3e-3
    """Adam, of the temperature's logarithm. It finds the order of magnitude that the values ask for. [EXPO, RLPD: 3e-4]"""
    every: int = 1
    """Updates of the critic per update of the actor. [RLPD: 20]"""
    candidates: int = 4
    """The policy's candidates that are edited per state and update, other ones each time."""
    target_entropy: float = -0.5
    """Per number of a chunk, of the edit before scaling, within [-1, 1]. [RLPD: -0.5]"""
    initial_temperature: float = 2e-4
    """Weight of the entropy at first; it then follows from the target. Entropies add up over all numbers of a chunk: at 0.01 they
    outweigh what edits are worth where returns lie in [0, 1], and edits remain noise. [HIL-SERL: 0.01, RLPD: 1]"""

    def __post_init__(self) -> None:
        if not 0 < self.scale <= 2:
            raise ConfigError(f"scale is {self.scale}, expected above 0 and at most 2, the whole range of an axis")
        if not self.hidden or min((*self.hidden, self.candidates, self.every)) < 1:
            raise ConfigError(
                f"hidden {self.hidden}, candidates {self.candidates}, every {self.every}: all must be at least 1"
            )
        for name in ("learning_rate", "temperature_learning_rate", "initial_temperature"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected a positive number")


class Edit(NamedTuple):
    """Edited chunks in robot units; the log-density of each edit before scaling; its length as a share of `scale`."""

    actions: Float[Tensor, "b k e a"]
    log_prob: Float[Tensor, "b k"]
    size: Float[Tensor, "b k"]


class EditNetwork(nn.Module):
    """See the module. Chunks are the E steps that the critic scores, in robot units."""

    low: Tensor
    high: Tensor

    def __init__(
        self, config: EditConfig, features: Raw | ReachedPoses, action: ActionSpec, steps: int, normalised_size: int
    ) -> None:
        super().__init__()
        self.features = features
        self.scale = config.scale
        self.shape = (steps, action.size)
        numbers = steps * action.size
        # A Gaussian of this width has the target entropy, as long as tanh hardly bends it.
        log_std = config.target_entropy - 0.5 * math.log(2 * math.pi * math.e)
        bias = torch.cat((torch.zeros(numbers), torch.full((numbers,), log_std)))
        size = normalised_size + features.state_size
        self.body = Member(size, features.action_size, config.hidden, 2 * numbers, bias)
        nn.init.zeros_(self.body.head.weight)
        self.register_buffer("low", torch.from_numpy(action.low.copy()), persistent=False)
        self.register_buffer("high", torch.from_numpy(action.high.copy()), persistent=False)

    def forward(
        self, state: State, actions: Float[Tensor, "b k e a"], noise: Float[Tensor, "b k e a"], committed: int = 0
    ) -> Edit:
        """One edit of each chunk; the first `committed` steps stay as they are."""
        mean, log_std = self._distribution(state, actions)
        before = mean + log_std.exp() * noise
        edit = torch.tanh(before)
        edit = torch.cat((torch.zeros_like(edit[:, :, :committed]), edit[:, :, committed:]), 2)
        reach = self.scale * (self.high - self.low) / 2
        edited = torch.minimum(torch.maximum(actions + reach * edit, self.low), self.high)
        size = edit.flatten(2).square().mean(-1).sqrt()
        return Edit(edited, _log_density(before, noise, log_std), size)

    def _distribution(self, state: State, actions: Float[Tensor, "b k e a"]) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of the edit before tanh, [B, K, E, A] each."""
        inputs = torch.cat((state.normalised, self.features.of_state(state.raw)), -1)
        outputs = self.body(self.body.embed(inputs), self.features(state.raw, actions))
        mean, log_std = outputs.unflatten(-1, (2, *self.shape)).unbind(2)
        return mean, log_std.clamp(_LOG_STD_LOW, _LOG_STD_HIGH)


def _log_density(
    before: Float[Tensor, "b k e a"], noise: Float[Tensor, "b k e a"], log_std: Float[Tensor, "b k e a"]
) -> Float[Tensor, "b k"]:
    """Of tanh(before), where before = mean + std * noise; the last term is log(1 - tanh^2) without its cancellation."""
    gaussian = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
    bent = 2 * (math.log(2) - before - nn.functional.softplus(-2 * before))
    density: Tensor = (gaussian - bent).flatten(2).sum(-1)
    return density
