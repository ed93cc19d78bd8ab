"""`FlowObjective`: velocity prediction on recorded chunks."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from policies.flow.config import FlowConfig
from policies.flow.network import FlowNetwork
from policies.flow.path import beta_times
from policies.flow.policy import KIND
from policies.training import ChunkObjective


class FlowObjective(ChunkObjective[FlowConfig]):
    """Trains a flow policy."""

    kind = KIND
    title = "Flow policy"
    inpaints = True

    def make_network(self) -> FlowNetwork:
        return FlowNetwork(self.config, self.spec, self.transforms)

    def draw(self, actions: Float[Tensor, "b h a"]) -> tuple[Tensor, Tensor]:
        """Noise float32[B, H, A] and times float32[B] in [0, 1)."""
        noise = torch.randn(actions.shape, generator=self.generator)
        uniform = torch.rand(len(actions), generator=self.generator)
        return noise, beta_times(uniform) if self.config.time_sampling == "beta" else uniform
