"""The T5 encoder (Raffel et al. 2020, arXiv:1910.10683) over the weights inside an Octo checkpoint.

It runs once per instruction. Relative position bias from block 0 for all blocks, no scaling of logits, RMS norms, no biases.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from policies.octo.config import T5Config
from policies.octo.layers import LOWEST, Weight, rms_norm
from policies.octo.parameters import Parameters, stacked
from policies.octo.shapes import T5


class T5Block(NamedTuple):
    """query, key, value: [d, heads * d_kv]; output: [heads * d_kv, d]; wide: [d, d_ff]; narrow: [d_ff, d]."""

    attention_norm: Weight
    query: Weight
    key: Weight
    value: Weight
    output: Weight
    mlp_norm: Weight
    wide: Weight
    narrow: Weight


class T5Encoder(NamedTuple):
    """embedding: [vocab, d]; position_bias: [buckets, heads]; blocks: stacked along a leading axis."""

    embedding: Weight
    position_bias: Weight
    blocks: T5Block
    norm: Weight


def make_t5(parameters: Parameters, config: T5Config) -> T5Encoder:
    """Take the encoder's arrays."""
    t5 = parameters.below(T5)
    blocks = [_make_block(t5.below(f"encoder/block/{i}/layer")) for i in range(config.num_layers)]
    bias = t5["encoder/block/0/layer/0/SelfAttention/relative_attention_bias/embedding"]
    return T5Encoder(t5["shared/embedding"], bias, stacked(blocks, blocks[0]), t5["encoder/final_layer_norm/weight"])


def _make_block(layer: Parameters) -> T5Block:
    query, key, value, output = (layer[f"0/SelfAttention/{name}/kernel"] for name in "qkvo")
    return T5Block(
        layer["0/layer_norm/weight"],
        query,
        key,
        value,
        output,
        layer["1/layer_norm/weight"],
        layer["1/DenseReluDense/wi/kernel"],
        layer["1/DenseReluDense/wo/kernel"],
    )


def encode_text(
    t5: T5Encoder, config: T5Config, ids: Int[Array, "b n"], attention_mask: Int[Array, "b n"]
) -> Float[Array, "b n d"]:
    """The last hidden states of token ids; padding (mask 0) is not attended to, but has outputs of its own."""
    x = jnp.asarray(t5.embedding)[ids]
    buckets = position_buckets(ids.shape[1], config.num_buckets, config.max_distance)
    bias = jnp.moveaxis(jnp.asarray(t5.position_bias)[buckets], -1, 0)
    hidden = jnp.where(attention_mask[:, None, None] > 0, 0.0, LOWEST)

    def run(x: Array, block: T5Block) -> tuple[Array, None]:
        x = x + _attend(block, config, rms_norm(block.attention_norm, x, config.epsilon), bias, hidden)
        return x + jax.nn.relu(rms_norm(block.mlp_norm, x, config.epsilon) @ block.wide) @ block.narrow, None

    x, _ = jax.lax.scan(run, x, t5.blocks)
    return rms_norm(t5.norm, x, config.epsilon)


def _attend(
    block: T5Block,
    config: T5Config,
    x: Float[Array, "b n d"],
    bias: Float[Array, "h n n"],
    hidden: Float[Array, "b 1 1 n"],
) -> Float[Array, "b n d"]:
    split = (*x.shape[:2], config.num_heads, config.d_kv)
    query, key, value = ((x @ kernel).reshape(split) for kernel in (block.query, block.key, block.value))
    logits = jnp.einsum("bqhd,bkhd->bhqk", query, key) + bias + hidden
    mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(logits), value)
    return mixed.reshape(*x.shape[:2], -1) @ block.output


def position_buckets(length: int, num_buckets: int, max_distance: int) -> Int[np.ndarray, "q k"]:
    """Bucket of each key's distance from each query: exact when near, logarithmic when far; keys ahead have their own half."""
    distance = np.arange(length)[None, :] - np.arange(length)[:, None]
    half = num_buckets // 2
    exact = half // 2
    near = np.abs(distance)
    scale = np.log(np.maximum(near, 1) / exact) / np.log(max_distance / exact)
    far = np.minimum(exact + (scale * (half - exact)).astype(np.int64), half - 1)
    buckets: Int[np.ndarray, "q k"] = np.where(near < exact, near, far) + half * (distance > 0)
    return buckets
