"""`FlowNetwork`: encoder and backbone; its `forward` is the training loss."""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Bool, Float
from torch import Tensor, nn

from policies.backbones.network import DenoisingNetwork
from policies.flow.path import point
from policies.training import weighted_mean


class FlowNetwork(DenoisingNetwork):
    """Everything that is trained; the backbone says the velocity of a chunk."""

    time_scale = 100

    def forward(
        self,
        arrays: Mapping[str, Tensor],
        mask: Bool[Tensor, "b t"],
        chunks: Float[Tensor, "b h a"],
        weights: Float[Tensor, " b"] | None,
        noise: Float[Tensor, "b h a"],
        times: Float[Tensor, " b"],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared error of the velocity x_1 - x_0 along the path (Liu et al. 2023, equation 1): (loss, info)."""
        x1, x0 = chunks.flatten(1), noise.flatten(1)
        velocity = self.correct(arrays, mask, point(x1, x0, times[:, None]), times)
        loss = weighted_mean(nn.functional.mse_loss(velocity, x1 - x0, reduction="none"), weights)
        return loss, {"loss": loss.detach()}
