"""The small parts every module of Octo is made of: dense layers and norms over plain arrays, as functions.

Parameters are named tuples of arrays, so that a whole model is one pytree that `jax.jit` takes as an argument.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float
from numpy.typing import NDArray

NORM_EPSILON = 1e-6
# Masked logits: finite, so that a row that sees nothing becomes uniform and not NaN.
LOWEST = float(np.finfo(np.float32).min)

# Parameters are numpy while they are read, and jax's once they are on their device; both are taken wherever one computes.
Weight: TypeAlias = Array | NDArray[Any]


class Dense(NamedTuple):
    """kernel: [in, out], or [height, width, in, out] of a convolution; bias: [out]."""

    kernel: Weight
    bias: Weight


class Norm(NamedTuple):
    """scale, bias: [channels]."""

    scale: Weight
    bias: Weight


def dense(layer: Dense, x: Float[Array, "*n i"]) -> Float[Array, "*n o"]:
    """x W + b."""
    return x @ layer.kernel + layer.bias


def layer_norm(norm: Norm, x: Float[Array, "*n c"]) -> Float[Array, "*n c"]:
    """Ba et al. 2016, over the last axis."""
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = jnp.square(centred).mean(axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(variance + NORM_EPSILON) * norm.scale + norm.bias


def group_norm(norm: Norm, x: Float[Array, "b h w c"], groups: int) -> Float[Array, "b h w c"]:
    """Wu and He 2018: statistics over height, width and the channels of a group."""
    batch, height, width, channels = x.shape
    grouped = x.reshape(batch, height * width, groups, channels // groups)
    centred = grouped - grouped.mean(axis=(1, 3), keepdims=True)
    variance = jnp.square(centred).mean(axis=(1, 3), keepdims=True)
    normal = centred * jax.lax.rsqrt(variance + NORM_EPSILON)
    return normal.reshape(x.shape) * norm.scale + norm.bias


def rms_norm(scale: Weight, x: Float[Array, "*n c"], epsilon: float) -> Float[Array, "*n c"]:
    """Zhang and Sennrich 2019, as in T5: no mean, no bias."""
    return x * jax.lax.rsqrt(jnp.square(x).mean(axis=-1, keepdims=True) + epsilon) * scale
