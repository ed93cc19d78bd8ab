"""A residual MLP over a flattened chunk.

The first layer is linear in (chunk, observation, time), so it is kept as three parts, of which only the chunk's is computed per
candidate.
"""

from __future__ import annotations

import math

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from policies.backbones.base import Backbone, TimeFeatures


class Residual(nn.Module):
    """x + W2 GELU(W1 LN(x))."""

    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.rise = nn.Linear(width, expansion)
        self.fall = nn.Linear(expansion, width)

    def forward(self, x: Float[Tensor, "*n w"]) -> Float[Tensor, "*n w"]:
        hidden: Tensor = self.fall(nn.functional.gelu(self.rise(self.norm(x))))
        return x + hidden


class ResidualMlp(Backbone):
    """Chunks of `chunk` = H * A numbers, given `condition` observation features."""

    def __init__(
        self, chunk: int, condition: int, hidden: int, expansion: int, blocks: int, time_features: int
    ) -> None:
        super().__init__()
        self.from_chunk = nn.Linear(chunk, hidden, bias=False)
        self.from_condition = nn.Linear(condition, hidden)
        self.time = TimeFeatures(time_features)
        self.from_time = nn.Linear(time_features, hidden, bias=False)
        self.blocks = nn.Sequential(*(Residual(hidden, expansion) for _ in range(blocks)))
        self.norm = nn.LayerNorm(hidden)
        self.head = nn.Linear(hidden, chunk)
        self._scale_as_one_layer(chunk + condition + time_features)

    def _scale_as_one_layer(self, inputs: int) -> None:
        """Draw the three parts as torch draws one linear layer of `inputs` inputs."""
        bound = 1 / math.sqrt(inputs)
        for part in (self.from_chunk, self.from_condition, self.from_time):
            nn.init.uniform_(part.weight, -bound, bound)
        nn.init.uniform_(self.from_condition.bias, -bound, bound)

    def embed_condition(self, features: Float[Tensor, "b c"]) -> Float[Tensor, "b w"]:
        """The observation's part of the first layer."""
        part: Tensor = self.from_condition(features)
        return part

    def embed_time(self, times: Shaped[Tensor, " s"]) -> Float[Tensor, "s w"]:
        """The time's part of the first layer."""
        part: Tensor = self.from_time(self.time(times))
        return part

    def forward(self, x: Float[Tensor, "*n c"], embedding: Float[Tensor, "*#n w"]) -> Float[Tensor, "*n c"]:
        correction: Tensor = self.head(self.norm(self.blocks(self.from_chunk(x) + embedding)))
        return correction
