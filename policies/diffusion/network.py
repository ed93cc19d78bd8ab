"""`DiffusionNetwork`: encoder and backbone; its `forward` is the training loss."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from policies.backbones.network import DenoisingNetwork
from policies.diffusion.config import DiffusionConfig
from policies.training import weighted_mean
from steer.policy import PolicySpec
from steer.transforms import Pipeline


class DiffusionNetwork(DenoisingNetwork):
    """Everything that is trained, and the noise levels it was trained with (so that serving needs no scheduler)."""

    alphas_cumprod: Tensor

    def __init__(
        self,
        config: DiffusionConfig,
        spec: PolicySpec,
        transforms: Pipeline,
        alphas_cumprod: Float[Tensor, " t"] | None = None,
    ) -> None:
        """alphas_cumprod: float32[T]; None leaves room for those of a checkpoint."""
        super().__init__(config, spec, transforms)
        levels = torch.ones(config.diffusion_steps) if alphas_cumprod is None else alphas_cumprod
        self.register_buffer("alphas_cumprod", levels)

    def forward(
        self,
        arrays: Mapping[str, Tensor],
        mask: Bool[Tensor, "b t"],
        chunks: Float[Tensor, "b h a"],
        weights: Float[Tensor, " b"] | None,
        noise: Float[Tensor, "b h a"],
        timesteps: Int[Tensor, " b"],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared error of the predicted noise (Ho et al. 2020, equation 14): (loss, info)."""
        alpha_bar = self.alphas_cumprod[timesteps][:, None]
        x = alpha_bar.sqrt() * chunks.flatten(1) + (1 - alpha_bar).sqrt() * noise.flatten(1)
        predicted = self.correct(arrays, mask, x, timesteps)
        loss = weighted_mean(nn.functional.mse_loss(predicted, noise.flatten(1), reduction="none"), weights)
        return loss, {"loss": loss.detach()}
