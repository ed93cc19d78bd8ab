"""The transformer: pre-norm blocks over [language prefix, steps], with the prefix's keys and values computed apart.

The prefix sees only itself, so that its part of every block depends on the instruction alone. It is computed once
(`encode_prefix`) and read by every later call. Where the row of a batch has no language, its prefix is masked as keys, so
nobody reads it, and its values do not matter.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from policies.octo.config import OctoConfig
from policies.octo.layers import LOWEST, Dense, Norm, dense, layer_norm
from policies.octo.parameters import Parameters, stacked
from policies.octo.shapes import STACK


class Block(NamedTuple):
    """query, key, value as one dense layer [D, 3 D]; output: [D, D]."""

    attention_norm: Norm
    projections: Dense
    output: Dense
    mlp_norm: Norm
    wide: Dense
    narrow: Dense


class Transformer(NamedTuple):
    """blocks: all but the last, stacked along a leading axis, so that one compiled block serves them all."""

    blocks: Block
    last: Block
    norm: Norm


class Prefix(NamedTuple):
    """What a call needs of an instruction: the tokens that enter the sequence, keys and values of every block.

    tokens: [B, n, D]; keys, values: [L, B, n, heads, D / heads].
    """

    tokens: Array
    keys: Array
    values: Array


def make_transformer(parameters: Parameters, config: OctoConfig) -> Transformer:
    """Take the arrays, with the three projections of each block side by side."""
    stack = parameters.below(STACK)
    blocks = [_make_block(stack.below(f"encoderblock_{i}"), config) for i in range(config.layers)]
    return Transformer(stacked(blocks[:-1], blocks[-1]), blocks[-1], stack.norm("encoder_norm"))


def _make_block(block: Parameters, config: OctoConfig) -> Block:
    attention = block.below("MultiHeadDotProductAttention_0")
    parts = [attention.dense(name) for name in ("query", "key", "value")]
    width = config.width
    return Block(
        block.norm("LayerNorm_0"),
        Dense(
            np.concatenate([part.kernel.reshape(width, width) for part in parts], axis=1),
            np.concatenate([part.bias.reshape(width) for part in parts]),
        ),
        Dense(attention["out/kernel"].reshape(width, width), attention["out/bias"]),
        block.norm("LayerNorm_1"),
        block.dense("MlpBlock_0/Dense_0"),
        block.dense("MlpBlock_0/Dense_1"),
    )


def encode_prefix(
    transformer: Transformer, heads: int, tokens: Float[Array, "b n d"]
) -> tuple[Prefix, Float[Array, "l b n d"]]:
    """The prefix, and its residual stream after each block."""

    def run(x: Array, block: Block) -> tuple[Array, tuple[Array, Array, Array]]:
        query, key, value = _project(block, heads, x)
        x = _finish(block, x, _attend(query, key, value, None))
        return x, (key, value, x)

    x, earlier = jax.lax.scan(run, tokens, transformer.blocks)
    _, last = run(x, transformer.last)
    keys, values, stream = (jnp.concatenate([parts, part[None]]) for parts, part in zip(earlier, last, strict=True))
    return Prefix(tokens, keys, values), stream


def encode_steps(
    transformer: Transformer,
    heads: int,
    prefix: Prefix,
    tokens: Float[Array, "b s d"],
    visible: Bool[Array, "b s n"],
    wanted: Int[np.ndarray, " r"],
) -> tuple[Float[Array, "b r d"], Float[Array, "l b s d"]]:
    """Everything after the prefix: the last block's outputs at the `wanted` positions, and the stream after each other block.

    Nobody reads other positions after the last block, so that they are no queries there.
    """

    def attend(x: Array, block: Block, key: Array, value: Array, rows: Int[np.ndarray, " r"] | slice) -> Array:
        query, own_key, own_value = _project(block, heads, x)
        keys = jnp.concatenate([key, own_key], axis=1)
        values = jnp.concatenate([value, own_value], axis=1)
        return _finish(block, x[:, rows], _attend(query[:, rows], keys, values, visible[:, rows]))

    def run(x: Array, layer: tuple[Block, Array, Array]) -> tuple[Array, Array]:
        x = attend(x, *layer, slice(None))
        return x, x

    x, stream = jax.lax.scan(run, tokens, (transformer.blocks, prefix.keys[:-1], prefix.values[:-1]))
    return attend(x, transformer.last, prefix.keys[-1], prefix.values[-1], wanted), stream


def _project(block: Block, heads: int, x: Float[Array, "b n d"]) -> list[Float[Array, "b n h c"]]:
    """Query, key and value."""
    projected = dense(block.projections, layer_norm(block.attention_norm, x))
    return [part.reshape(*x.shape[:2], heads, -1) for part in jnp.split(projected, 3, axis=-1)]


def _attend(
    query: Float[Array, "b q h c"],
    key: Float[Array, "b n h c"],
    value: Float[Array, "b n h c"],
    visible: Bool[Array, "b q n"] | None,
) -> Float[Array, "b q d"]:
    """Vaswani et al. 2017, equation 1. What is not visible gets the lowest finite logit, so that no row becomes NaN."""
    scale = query.shape[-1] ** -0.5
    logits = jnp.einsum("bqhc,bkhc->bhqk", query * scale, key)
    if visible is not None:
        logits = jnp.where(visible[:, None], logits, LOWEST)
    mixed = jnp.einsum("bhqk,bkhc->bqhc", jax.nn.softmax(logits), value)
    return mixed.reshape(*query.shape[:2], -1)


def _finish(block: Block, x: Float[Array, "b q d"], mixed: Float[Array, "b q d"]) -> Float[Array, "b q d"]:
    """The rest of a block after attention has mixed the values."""
    x = x + dense(block.output, mixed)
    hidden = jax.nn.gelu(dense(block.wide, layer_norm(block.mlp_norm, x)), approximate=True)
    return x + dense(block.narrow, hidden)
