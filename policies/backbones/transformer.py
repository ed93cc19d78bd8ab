"""A transformer over the steps of a chunk, after Chi et al. 2023, section IV-A.

Every step is a token. A block is self-attention among the tokens, cross-attention to a memory of one token for the time and one
per frame of observations, and an MLP, all pre-norm. The memory's keys and values do not depend on the chunk: those of the
observations are computed once, those of the time once per time, and the tokens of all candidates of an observation query them
as one sequence. Other than there, self-attention is not causal: a committed step and the steps after it read each other.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from policies.backbones.base import Backbone, TimeFeatures, per_condition

_attend = nn.functional.scaled_dot_product_attention


class Block(nn.Module):
    """Self-attention, cross-attention to ready keys and values, MLP."""

    def __init__(self, width: int, heads: int, expansion: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.self_inputs = nn.Linear(width, 3 * width)
        self.self_output = nn.Linear(width, width)
        self.cross_query = nn.Linear(width, width)
        self.cross_output = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, expansion * width), nn.GELU(), nn.Linear(expansion * width, width))

    def forward(
        self, x: Float[Tensor, "n h w"], keys: Float[Tensor, "r g m d"], values: Float[Tensor, "r g m d"]
    ) -> Float[Tensor, "n h w"]:
        """N / R consecutive chunks share the keys and values of M memory tokens, in G heads."""
        query, key, value = (self._split(part) for part in self.self_inputs(self.norms[0](x)).chunk(3, dim=-1))
        x = x + self.self_output(_join(_attend(query, key, value)))
        query = self._split(self.cross_query(self.norms[1](x)).view(len(keys), -1, x.shape[-1]))
        x = x + self.cross_output(_join(_attend(query, keys, values))).view_as(x)
        output: Tensor = x + self.mlp(self.norms[2](x))
        return output

    def _split(self, x: Float[Tensor, "n l w"]) -> Float[Tensor, "n g l d"]:
        return x.view(*x.shape[:-1], self.heads, -1).transpose(1, 2)


class Transformer(Backbone):
    """Chunks of H = `horizon` steps with A = `axes` numbers each, given T = `window` frames of observation features."""

    def __init__(
        self,
        horizon: int,
        axes: int,
        features: int,
        window: int,
        width: int,
        heads: int,
        blocks: int,
        expansion: int,
        time_features: int,
    ) -> None:
        """features: of the whole window."""
        super().__init__()
        self.shape, self.window, self.memory = (horizon, axes), window, (blocks, 2, heads, width // heads)
        self.from_step = nn.Linear(axes, width)
        self.positions = nn.Parameter(torch.randn(horizon, width) * 0.02)
        self.frame_positions = nn.Parameter(torch.randn(window, width) * 0.02)
        self.from_frame = _token(features // window, width)
        self.from_time = nn.Sequential(TimeFeatures(time_features), _token(time_features, width))
        self.memory_norm = nn.LayerNorm(width)
        self.to_memory = nn.Linear(width, 2 * blocks * width)
        self.blocks = nn.ModuleList(Block(width, heads, expansion) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, axes)

    def embed_condition(self, features: Float[Tensor, "b c"]) -> Float[Tensor, "b wc"]:
        """Keys and values of all blocks for every frame of the observation."""
        tokens = self.from_frame(features.view(len(features), self.window, -1)) + self.frame_positions
        return self._remember(tokens).flatten(1)

    def embed_time(self, times: Shaped[Tensor, " s"]) -> Float[Tensor, "s wt"]:
        """Keys and values of all blocks for the time."""
        return self._remember(self.from_time(times))

    def join(self, condition: Float[Tensor, "*#n wc"], time: Float[Tensor, "*#n wt"]) -> Float[Tensor, "*n w"]:
        """The memory: the time's token, then the observation's."""
        lead = np.broadcast_shapes(condition.shape[:-1], time.shape[:-1])
        return torch.cat([time.expand(*lead, -1), condition.expand(*lead, -1)], dim=-1)

    def forward(self, x: Float[Tensor, "*n c"], embedding: Float[Tensor, "*#n w"]) -> Float[Tensor, "*n c"]:
        chunks, rows = per_condition(x, embedding)
        # [R, M, blocks, 2, G, D] -> blocks, each with its keys and values [R, G, M, D].
        memory = rows.view(len(rows), -1, *self.memory).permute(2, 3, 0, 4, 1, 5)
        h = self.from_step(chunks.reshape(-1, *self.shape)) + self.positions
        for block, (keys, values) in zip(self.blocks, memory, strict=True):
            h = block(h, keys, values)
        correction: Tensor = self.head(self.norm(h))
        return correction.reshape(x.shape)

    def _remember(self, tokens: Float[Tensor, "*n w"]) -> Float[Tensor, "*n m"]:
        keys_and_values: Tensor = self.to_memory(self.memory_norm(tokens))
        return keys_and_values


def _token(features: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(features, width), nn.GELU(), nn.Linear(width, width))


def _join(x: Float[Tensor, "n g l d"]) -> Float[Tensor, "n l w"]:
    return x.transpose(1, 2).flatten(2)
