"""`GaussianNetwork`: encoder, residual MLP, means and standard deviations; its `forward` is the training loss."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from policies.backbones.mlp import Residual
from policies.encoder import ObservationEncoder, vector_sizes
from policies.gaussian.config import GaussianConfig
from policies.training import weighted_mean
from steer.policy import PolicySpec
from steer.transforms import Pipeline


class Constant(nn.Module):
    """Learned numbers, the same for every row; they begin at standard deviations of about .3."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.full((size,), -1.0))

    def forward(self, x: Float[Tensor, "b f"]) -> Float[Tensor, "b s"]:
        return self.values.expand(len(x), -1)


class GaussianNetwork(nn.Module):
    """Everything that is trained."""

    def __init__(self, config: GaussianConfig, spec: PolicySpec, transforms: Pipeline) -> None:
        super().__init__()
        self.min_std, self.beta = config.min_std, config.beta
        chunk = spec.horizon * spec.action.size
        self.encoder = ObservationEncoder(spec.observation, vector_sizes(spec, transforms), config.image_features)
        self.trunk = nn.Sequential(
            nn.Linear(self.encoder.size, config.hidden),
            *(Residual(config.hidden, config.expansion) for _ in range(config.blocks)),
            nn.LayerNorm(config.hidden),
        )
        self.mean = nn.Linear(config.hidden, chunk)
        # Softplus of these and `min_std` make the standard deviation.
        self.spread = nn.Linear(config.hidden, chunk) if config.std == "state" else Constant(chunk)

    def moments(self, features: Float[Tensor, "b f"]) -> tuple[Float[Tensor, "b c"], Float[Tensor, "b c"]]:
        """Means and standard deviations of the chunk's entries."""
        hidden = self.trunk(features)
        mean: Tensor = self.mean(hidden)
        spread: Tensor = self.spread(hidden)
        return mean, nn.functional.softplus(spread) + self.min_std

    def forward(
        self,
        arrays: Mapping[str, Tensor],
        mask: Bool[Tensor, "b t"],
        chunks: Float[Tensor, "b h a"],
        weights: Float[Tensor, " b"] | None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Negative log-likelihood per entry without its constant, weighed by std^(2 beta) (Seitzer et al. 2022, equation 9)."""
        mean, std = self.moments(self.encoder(arrays, mask))
        squared = (chunks.flatten(1) - mean).square()
        likelihood = 0.5 * squared / std.square() + std.log()
        loss = weighted_mean(likelihood * std.detach().pow(2 * self.beta), weights)
        info = {"loss": loss, "nll": likelihood.mean(), "mse": squared.mean(), "std": std.mean()}
        return loss, {name: value.detach() for name, value in info.items()}
