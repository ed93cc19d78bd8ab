"""`DiffusionObjective`: noise prediction on recorded chunks."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from policies.diffusion.config import DiffusionConfig
from policies.diffusion.network import DiffusionNetwork
from policies.diffusion.policy import KIND
from policies.diffusion.schedule import alphas_cumprod
from policies.training import ChunkObjective


class DiffusionObjective(ChunkObjective[DiffusionConfig]):
    """Trains a diffusion policy."""

    kind = KIND
    title = "Diffusion policy"
    inpaints = True

    def make_network(self) -> DiffusionNetwork:
        levels = alphas_cumprod(self.config.diffusion_steps)
        return DiffusionNetwork(self.config, self.spec, self.transforms, levels)

    def draw(self, actions: Float[Tensor, "b h a"]) -> tuple[Tensor, Tensor]:
        """Noise float32[B, H, A] and denoising steps int64[B]."""
        noise = torch.randn(actions.shape, generator=self.generator)
        return noise, torch.randint(self.config.diffusion_steps, (len(actions),), generator=self.generator)
