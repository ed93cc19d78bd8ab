"""The value network: encoder, then M multilayer perceptrons over (encoding, action) that share their last layer.

Only the hidden layers are an ensemble in the published code; the head is one for all members, and must stay so to give the
published scores. The encoding's share of the first layer does not depend on the action: it is worked out once per image, for
any number of candidates.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from critics.vgps.config import NetworkConfig
from critics.vgps.encoder import Encoder

LAYER_NORM_EPS = 1e-6


class EnsembleLinear(nn.Module):
    """M linear layers side by side. weight: [M, in, out], bias: [M, out]."""

    def __init__(self, members: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(members, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(members, outputs))

    def forward(self, x: Float[Tensor, "m n i"]) -> Float[Tensor, "m n o"]:
        return torch.baddbmm(self.bias[:, None], x, self.weight)


class EnsembleLayerNorm(nn.Module):
    """M layer norms side by side. weight, bias: [M, n]."""

    def __init__(self, members: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(members, size))
        self.bias = nn.Parameter(torch.zeros(members, size))

    def forward(self, x: Float[Tensor, "m *n i"]) -> Float[Tensor, "m *n i"]:
        shape = (len(x), *(1,) * (x.ndim - 2), x.shape[-1])
        normed = F.layer_norm(x, x.shape[-1:], eps=LAYER_NORM_EPS)
        return normed * self.weight.reshape(shape) + self.bias.reshape(shape)


class ValueNetwork(nn.Module):
    """Q(image, text, action) per member."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder)
        widths = (config.encoder.features(config.image_size) + config.action_size, *config.hidden)
        pairs = list(pairwise(widths))
        self.layers = nn.ModuleList(EnsembleLinear(config.members, i, o) for i, o in pairs)
        self.norms = nn.ModuleList(EnsembleLayerNorm(config.members, o) for _, o in pairs if config.layer_norm)
        self.head = nn.Linear(config.hidden[-1], 1)

    def embed(self, images: UInt8[Tensor, "b h w 3"], text: Float[Tensor, "b t"] | None) -> Float[Tensor, "m b n"]:
        """The first layer of every member as far as it depends on the image and the text alone."""
        encoding = self.encoder(images, text)
        weight, bias = self._first()
        embedded: Tensor = torch.einsum("bi,mio->mbo", encoding, weight[:, : encoding.shape[1]]) + bias[:, None]
        return embedded

    def score(self, embedded: Float[Tensor, "m b n"], actions: Float[Tensor, "b k a"]) -> Float[Tensor, "m b k"]:
        """Q of K actions per image; actions in [-1, 1]."""
        weight, _ = self._first()
        x = embedded[:, :, None] + torch.einsum("bka,mao->mbko", actions, weight[:, -actions.shape[2] :])
        members, rows, count, _ = x.shape
        x = self._activate(x.flatten(1, 2), 0)
        for i, layer in enumerate(list(self.layers)[1:], start=1):
            x = self._activate(layer(x), i)
        q: Tensor = self.head(x)[..., 0].reshape(members, rows, count)
        return q

    def _first(self) -> tuple[Tensor, Tensor]:
        first = self.layers[0]
        assert isinstance(first, EnsembleLinear)
        return first.weight, first.bias

    def _activate(self, x: Float[Tensor, "m n o"], layer: int) -> Float[Tensor, "m n o"]:
        return self.encoder.act(self.norms[layer](x) if len(self.norms) else x)  # type: ignore[no-any-return]  # nn.Module
