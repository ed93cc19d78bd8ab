"""Heads: how a network's last numbers become a value, and how they are fitted to a target value.

`MeanSquared` is the plain scalar. `HLGauss` is the histogram loss with Gaussian targets of "Stop Regressing" (Farebrother et al.
2024, arXiv 2403.03950, section 3.1): the target becomes a Gaussian over bins, fitted by cross-entropy. Whatever ranks,
bounds or bootstraps works on values; only the loss to the target differs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steer.errors import ConfigError


class Head(Protocol):
    """The last step of a Q network."""

    outputs: int
    """Numbers per action that the network has to give."""
    penalty_scale: float
    """Factor on the conservative term that keeps its weight against this head's loss what it is against 1/2 (Q - y)^2."""

    def values(self, outputs: Float[Tensor, "*n o"]) -> Float[Tensor, "*n"]: ...

    def loss(self, outputs: Float[Tensor, "*n o"], targets: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]: ...

    def initial_bias(self) -> Float[Tensor, " o"]:
        """Bias of the last layer before training: values start low, so that what was never tried is not preferred."""
        ...


@dataclass(frozen=True)
class MeanSquared:
    """A scalar; loss = weight (Q - y)^2."""

    weight: float = 0.5
    """1 in the published Cal-QL code; 1/2 makes the gradient Q - y, the measure of `alpha`."""
    outputs = 1
    penalty_scale = 1.0

    def values(self, outputs: Float[Tensor, "*n o"]) -> Float[Tensor, "*n"]:
        return outputs[..., 0]

    def loss(self, outputs: Float[Tensor, "*n o"], targets: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        return self.weight * (outputs[..., 0] - targets) ** 2

    def initial_bias(self) -> Float[Tensor, " o"]:
        return torch.zeros(1)


@dataclass(frozen=True)
class HLGaussConfig:
    """The histogram head. Defaults fit returns in [0, 1]."""

    low: float = -0.1
    """Lowest edge; must lie below every possible target (PA-RL: -100)."""
    high: float = 1.1
    """Highest edge (PA-RL: 0)."""
    bins: int = 51
    """Bins between the edges (PA-RL: 128)."""
    sigma_bins: float = 0.75
    """Standard deviation of the target Gaussian in bin widths (paper: 0.75)."""
    form: Literal["paper", "jaxrl_m"] = "paper"
    """jaxrl_m feeds the normal distribution function with x / (sqrt(2) sigma): an effective sigma sqrt(2) wider."""
    initial: float = 0.0
    """Where the distribution sits before training; a uniform start is the middle of the support."""
    penalty_scale: float = 30.0
    """Cross-entropy pulls harder than 1/2 (Q - y)^2, by about 1 / variance of the prediction; `alpha` grows with it."""

    def __post_init__(self) -> None:
        if not self.low < self.high or self.bins < 2 or self.sigma_bins <= 0:
            raise ConfigError(
                f"hl_gauss: low {self.low}, high {self.high}, {self.bins} bins, sigma {self.sigma_bins}: no support"
            )
        if not self.low <= self.initial <= self.high:
            raise ConfigError(f"hl_gauss: initial value {self.initial} is outside [{self.low}, {self.high}]")


class HLGauss(nn.Module):
    """A categorical over bins; value = sum of probability times bin centre."""

    edges: Tensor
    centres: Tensor

    def __init__(self, config: HLGaussConfig) -> None:
        super().__init__()
        self.config = config
        self.outputs = config.bins
        self.penalty_scale = config.penalty_scale
        edges = torch.linspace(config.low, config.high, config.bins + 1, dtype=torch.float64)
        self.register_buffer("edges", edges, persistent=False)
        self.register_buffer("centres", ((edges[:-1] + edges[1:]) / 2).float(), persistent=False)
        effective = config.sigma_bins * (math.sqrt(2.0) if config.form == "jaxrl_m" else 1.0)
        self.sigma = effective * (config.high - config.low) / config.bins

    def values(self, outputs: Float[Tensor, "*n o"]) -> Float[Tensor, "*n"]:
        return outputs.softmax(-1) @ self.centres

    def loss(self, outputs: Float[Tensor, "*n o"], targets: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Cross-entropy to the target's distribution."""
        return -(self.target_probabilities(targets) * outputs.log_softmax(-1)).sum(-1)

    def target_probabilities(self, targets: Float[Tensor, "*n"]) -> Float[Tensor, "*n o"]:
        """A Gaussian around each target, integrated per bin and normalised to the support (equation 3.3 of the paper).

        A target outside the support is moved to its edge; `outside` counts them.
        """
        return self._histogram(targets, self.sigma)

    def outside(self, targets: Float[Tensor, "*n"]) -> Float[Tensor, ""]:
        """Share of the targets that the support cannot represent."""
        return ((targets < self.config.low) | (targets > self.config.high)).float().mean()

    def initial_bias(self) -> Float[Tensor, " o"]:
        # A little of everything: bins that start out of reach hardly get a gradient, and values then rise far too slowly.
        low = self._histogram(torch.tensor(self.config.initial), 3 * self.sigma)
        return (0.9 * low + 0.1 / self.outputs).log()

    def _histogram(self, centres: Float[Tensor, "*n"], sigma: float) -> Float[Tensor, "*n o"]:
        # Double precision: differences of nearly equal distribution functions far from the centre.
        at = centres.double().clamp(self.config.low, self.config.high)[..., None]
        below = torch.erf((self.edges - at) / (math.sqrt(2.0) * sigma))
        return ((below[..., 1:] - below[..., :-1]) / (below[..., -1:] - below[..., :1])).float()
