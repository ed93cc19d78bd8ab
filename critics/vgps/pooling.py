"""From a feature map [B, C, H, W] to one vector: the five ways of the published encoder."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from critics.vgps.config import EncoderConfig
from steer.errors import SpecError


class MeanPool(nn.Module):
    """Mean over the map; what the released configuration does."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c"]:
        return x.mean((2, 3))


class MaxPool(nn.Module):
    """Maximum over the map."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c"]:
        return x.amax((2, 3))


class Flatten(nn.Module):
    """Everything, in the order rows, columns, channels."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n"]:
        return x.movedim(1, -1).flatten(1)


class SpatialSoftmax(nn.Module):
    """Expected position of each channel (Levine et al. 2016): all first coordinates, then all second ones.

    Attention runs over q = row * W + column, but the published tables hold lin(H)[q mod H] and lin(W)[q div H]. On a square map
    that only names the axes the other way round; on others it scrambles them, and a trained head expects just that.
    """

    def __init__(self, temperature: float, learned: bool) -> None:
        super().__init__()
        value = torch.full((1,), temperature)
        self.temperature = nn.Parameter(value) if learned else None
        self._fixed = temperature

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2"]:
        height, width = x.shape[2:]
        q = torch.arange(height * width, device=x.device)
        first = torch.linspace(-1, 1, height, device=x.device)[q % height]
        second = torch.linspace(-1, 1, width, device=x.device)[q // height]
        temperature = self._fixed if self.temperature is None else self.temperature
        attention = torch.softmax(x.flatten(2) / temperature, -1)
        return torch.cat(((attention * first).sum(-1), (attention * second).sum(-1)), 1)


class LearnedEmbeddings(nn.Module):
    """F weighted sums over the map per channel, in the order channels, sums. kernel: [H, W, C, F]."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.zeros(shape))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n"]:
        if x.shape[2:] != self.kernel.shape[:2]:
            raise SpecError(
                f"the feature map is {tuple(x.shape[2:])}, the learned embeddings are for {tuple(self.kernel.shape[:2])}: "
                "set image_size to what the checkpoint was trained with"
            )
        return torch.einsum("bchw,hwcf->bcf", x, self.kernel).flatten(1)


def make_pooling(config: EncoderConfig) -> nn.Module:
    """The pooling of a configuration."""
    if config.pooling == "max":
        return MaxPool()
    if config.pooling == "none":
        return Flatten()
    if config.pooling == "spatial_softmax":
        return SpatialSoftmax(config.softmax_temperature, config.learned_temperature)
    if config.pooling == "spatial_learned_embeddings":
        return LearnedEmbeddings(config.spatial_kernel)
    return MeanPool()
