"""`Backbone`: the interface of networks that correct noisy chunks, and the features of time that all of them read.

What depends on the observation is computed once per observation, what depends on the time once per time, and what both give
together is an embedding of one row per (time, observation): no work of theirs is repeated for the candidates.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn


class Backbone(nn.Module):
    """A correction (noise, or velocity) of chunks of H * A numbers. The width W of an embedding is the backbone's own business."""

    def embed_condition(self, features: Float[Tensor, "b c"]) -> Float[Tensor, "b wc"]:
        """The observation's part of the embedding."""
        raise NotImplementedError

    def embed_time(self, times: Shaped[Tensor, " s"]) -> Float[Tensor, "s wt"]:
        """The time's part of the embedding."""
        raise NotImplementedError

    def join(self, condition: Float[Tensor, "*#n wc"], time: Float[Tensor, "*#n wt"]) -> Float[Tensor, "*n w"]:
        """One embedding of both parts, their leading axes broadcast: their sum unless a backbone says otherwise."""
        return condition + time

    def freeze(self) -> None:
        """Prepare for inference with weights that will not change."""

    def forward(self, x: Float[Tensor, "*n c"], embedding: Float[Tensor, "*#n w"]) -> Float[Tensor, "*n c"]:
        """The correction of the chunks `x`: [N, H * A] with embeddings [N, W], or [B, K, H * A] with [B, 1, W]."""
        raise NotImplementedError


class TimeFeatures(nn.Module):
    """Sinusoidal features of a denoising step or time (Vaswani et al. 2017, section 3.5)."""

    frequencies: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        half = features // 2
        frequencies = torch.exp(-math.log(10_000.0) * torch.arange(half) / max(half - 1, 1))
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, times: Shaped[Tensor, " s"]) -> Float[Tensor, "s f"]:
        angles = times[:, None].float() * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


def per_condition(x: Float[Tensor, "*n c"], embedding: Float[Tensor, "*#n w"]) -> tuple[Tensor, Tensor]:
    """Both with their candidates on one axis: [R, K, H * A] and [R, W], where K chunks share each of R embeddings."""
    rows = embedding.flatten(0, -2)
    return x.reshape(len(rows), -1, x.shape[-1]), rows
