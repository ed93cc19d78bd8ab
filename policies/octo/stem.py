"""The image tokenizer: four convolutions of stride two with standardised weights, then one token per position.

Xiao et al. 2021, "Early convolutions help transformers see better"; weight standardisation: Qiao et al. 2019.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from policies.octo.config import CameraConfig
from policies.octo.layers import Dense, Norm, Weight, group_norm
from policies.octo.parameters import Parameters

GROUPS = 32
STANDARDISE_EPSILON = 1e-5


class Stem(NamedTuple):
    """Convolutions with folded weights, their norms, and the 1x1 convolution to tokens as a dense layer."""

    convolutions: tuple[Dense, ...]
    norms: tuple[Norm, ...]
    embedding: Dense


def make_stem(parameters: Parameters, camera: CameraConfig) -> Stem:
    """Fold the weight standardisation, which does not depend on the image, into the kernels."""
    stem = parameters.below(f"octo_transformer/observation_tokenizers_{camera.name}/SmallStem16_0")
    indices = range(len(camera.features))
    embedding = stem.dense("embedding")
    return Stem(
        tuple(Dense(standardise(stem[f"StdConv_{i}/kernel"]), stem[f"StdConv_{i}/bias"]) for i in indices),
        tuple(stem.norm(f"GroupNorm_{i}") for i in indices),
        Dense(embedding.kernel[0, 0], embedding.bias),
    )


def standardise(kernel: Float[np.ndarray, "h w i o"]) -> Float[np.ndarray, "h w i o"]:
    """(w - mean) / (std + eps) over everything but the output; the epsilon is added to the deviation."""
    exact = kernel.astype(np.float64)
    mean, std = exact.mean(axis=(0, 1, 2)), exact.std(axis=(0, 1, 2))
    folded: Float[np.ndarray, "h w i o"] = ((exact - mean) / (std + STANDARDISE_EPSILON)).astype(np.float32)
    return folded


def stem_tokens(stem: Stem, frames: Weight, goal: Weight | None) -> Float[Array, "b w n c"]:
    """Tokens of each frame, row by row. frames: uint8[b, w, h, v, 3]; goal: uint8[b, h, v, 3].

    Channels are [frame, goal], both scaled alike, so that a missing goal (zeros) becomes -1.
    """
    batch, window = frames.shape[:2]
    if goal is not None:
        frames = jnp.concatenate([frames, jnp.broadcast_to(goal[:, None], frames.shape)], axis=-1)
    x = jnp.asarray(frames).reshape(batch * window, *frames.shape[2:]).astype(jnp.float32) / 127.5 - 1.0
    for convolution, norm in zip(stem.convolutions, stem.norms, strict=True):
        x = jax.lax.conv_general_dilated(
            x, jnp.asarray(convolution.kernel), (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jax.nn.relu(group_norm(norm, x + convolution.bias, GROUPS))
    tokens = x @ stem.embedding.kernel + stem.embedding.bias
    return tokens.reshape(batch, window, -1, tokens.shape[-1])
