"""`OctoModel`: the parameters on their device, and four compiled functions over them.

    language -> (once per instruction) -> prefix ─┐
    frames, goals ──────────────────────────────> readouts -> (per candidate) -> chunks

Each is compiled once per configuration and shape, and shared by all models that have these. The parameters are an argument of the
compiled functions, a pytree of named tuples: closing over them would bake them into the program as constants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from policies.octo.attention import LANGUAGE, Layout, attention_rule
from policies.octo.config import OctoConfig, T5Config
from policies.octo.head import Head, Turn, denoise, make_head, make_turns
from policies.octo.layers import Dense, Weight, dense, layer_norm
from policies.octo.parameters import Parameters, Weights
from policies.octo.shapes import TRANSFORMER
from policies.octo.stem import Stem, make_stem, stem_tokens
from policies.octo.t5 import T5Encoder, encode_text, make_t5
from policies.octo.transformer import Prefix, Transformer, encode_prefix, encode_steps, make_transformer


class Projection(NamedTuple):
    """Tokens into the sequence: a dense layer and a table of positions."""

    layer: Dense
    positions: Weight


class Eyes(NamedTuple):
    """Everything between frames and readouts. positions: of the readouts, name -> [1, rows, R, D]."""

    stems: dict[str, Stem]
    cameras: dict[str, Projection]
    readouts: dict[str, Weight]
    transformer: Transformer


class Words(NamedTuple):
    """Language tokens [B, n, d] into the prefix."""

    language: Projection
    transformer: Transformer


class Scene(NamedTuple):
    """What a call shows the model; B rows, W frames, oldest first.

    frames: camera -> uint8[B, W, h, w, 3], cameras that are not there left out; goals: camera -> uint8[B, h, w, 3], black for none;
    has_language: bool[B]; steps: bool[B, W], False for padding; seen: camera -> bool[B, W], False where that camera is missing.
    """

    frames: Mapping[str, Weight]
    goals: Mapping[str, Weight]
    has_language: Weight
    steps: Weight
    seen: Mapping[str, Weight]


class OctoModel:
    """An Octo model over a checkpoint's weights (path -> array), see the module's description."""

    def __init__(self, config: OctoConfig, t5: T5Config, weights: Weights) -> None:
        self.config = config
        parameters = Parameters(weights)
        root = parameters.below(TRANSFORMER)
        transformer = jax.device_put(make_transformer(parameters, config))
        head = make_head(parameters, config.head, config.width)
        self.t5: T5Encoder = jax.device_put(make_t5(parameters, t5))
        self.words: Words = jax.device_put(Words(_projection(root, "task_language"), transformer))
        self.eyes: Eyes = jax.device_put(
            Eyes(
                {camera.name: make_stem(parameters, camera) for camera in config.cameras},
                {camera.name: _projection(root, f"obs_{camera.name}") for camera in config.cameras},
                {name: root[f"{name}_pos_embedding"] for name, _ in config.readouts},
                transformer,
            )
        )
        self.head: Head = jax.device_put(head)
        self.turns: Turn = jax.device_put(make_turns(config.head, np.asarray(head.times)))
        self._t5_config = t5

    def language_tokens(self, ids: Int[np.ndarray, "b n"], attention_mask: Int[np.ndarray, "b n"]) -> Array:
        """T5's outputs [B, n, d] for token ids."""
        tokens: Array = _encode_text(self.t5, self._t5_config, ids, attention_mask)
        return tokens

    def prefix(self, tokens: Float[Array, "b n d"] | Float[np.ndarray, "b n d"]) -> Prefix:
        """What later calls need of an instruction's language tokens."""
        prefix: Prefix = _prefix(self.words, tokens, self.config.heads)
        return prefix

    def readouts(self, scene: Scene, prefix: Prefix) -> Float[Array, "b d"]:
        """The embedding of the newest step, for the head: the mean of its readout tokens."""
        readouts: Array = _readouts(self.config, self.eyes, prefix, scene)
        return readouts

    def chunks(
        self, readout: Float[Array, "b d"], noise: Float[np.ndarray, "s b k c"], acts: Bool[np.ndarray, " c"]
    ) -> Float[Array, "b k c"]:
        """Chunks, flat and normalised, from the noise of every turn, see `head.denoise`."""
        chunks: Array = _chunks(self.head, self.turns, self.config.head.max_action, readout, noise, acts)
        return chunks


def _projection(root: Parameters, name: str) -> Projection:
    return Projection(root.dense(f"{name}_projection"), root[f"{name}_pos_embedding"])


_encode_text = jax.jit(encode_text, static_argnums=1)


@partial(jax.jit, static_argnums=2)
def _prefix(words: Words, tokens: Array, heads: int) -> Prefix:
    return encode_prefix(words.transformer, heads, prefix_tokens(words, tokens))[0]


@partial(jax.jit, static_argnums=2)
def _chunks(head: Head, turns: Turn, max_action: float, readout: Array, noise: Array, acts: Array) -> Array:
    return denoise(head, turns, max_action, readout, noise, acts)[0]


@partial(jax.jit, static_argnums=0)
def _readouts(config: OctoConfig, eyes: Eyes, prefix: Prefix, scene: Scene) -> Float[Array, "b d"]:
    tokens = camera_tokens(eyes, scene)
    layout = scene_layout(config, tokens)
    newest = layout.rows(config.head.readout)[-1]
    sequence = step_tokens(eyes, layout, prefix.tokens, tokens)
    visible = visible_keys(config, layout, scene)[:, layout.prefix :]
    out, _ = encode_steps(eyes.transformer, config.heads, prefix, sequence, visible, newest)
    return layer_norm(eyes.transformer.norm, out).mean(axis=1)


def prefix_tokens(words: Words, tokens: Float[Array, "b n d"]) -> Float[Array, "b n e"]:
    """Language tokens as they stand in the sequence."""
    return dense(words.language.layer, tokens) + words.language.positions


def camera_tokens(eyes: Eyes, scene: Scene) -> dict[str, Float[Array, "b w n c"]]:
    """Tokens of each camera that is there, before their projection."""
    return {
        name: stem_tokens(stem, scene.frames[name], scene.goals.get(name))
        for name, stem in eyes.stems.items()
        if name in scene.frames
    }


def scene_layout(config: OctoConfig, tokens: Mapping[str, Array]) -> Layout:
    """The order of the sequence for the cameras that are there."""
    present: Sequence[tuple[str, int]] = [
        (name, tokens[name].shape[2]) for name in config.camera_names if name in tokens
    ]
    window = next(iter(tokens.values())).shape[1]
    return Layout.of(config, present, window)


def step_tokens(
    eyes: Eyes, layout: Layout, language: Float[Array, "b n d"], tokens: Mapping[str, Float[Array, "b w n c"]]
) -> Float[Array, "b s d"]:
    """Everything after the prefix. Row 0 of a position table belongs to the oldest frame of the window."""
    batch, window = language.shape[0], layout.window
    groups = []
    for group in layout.groups:
        if group.readout:
            x = jnp.broadcast_to(eyes.readouts[group.name][:, :window], (batch, window, group.size, language.shape[-1]))
        elif group.name in tokens:
            projection = eyes.cameras[group.name]
            x = dense(projection.layer, tokens[group.name]) + projection.positions[:, :window]
        else:
            x = jnp.broadcast_to(language[:, None], (batch, window, *language.shape[1:]))
        groups.append(x)
    return jnp.concatenate(groups, axis=2).reshape(batch, -1, language.shape[-1])


def key_masks(layout: Layout, scene: Scene) -> dict[str, Bool[Array, "b w n"]]:
    """Per group of a step: which of its tokens may be seen. Readouts always, repeated language wherever there is any."""
    batch, window = scene.steps.shape
    masks = {}
    for group in layout.groups:
        if group.readout:
            flags = jnp.ones((batch, window), bool)
        elif group.name == LANGUAGE:
            flags = jnp.broadcast_to(scene.has_language[:, None], (batch, window))
        else:
            flags = jnp.logical_and(scene.steps, scene.seen.get(group.name, True))
        masks[group.name] = jnp.broadcast_to(flags[:, :, None], (batch, window, group.size))
    return masks


def visible_keys(config: OctoConfig, layout: Layout, scene: Scene) -> Bool[Array, "b n n"]:
    """[row, query, key]: the rule, and the key's own mask."""
    batch = scene.steps.shape[0]
    prefix = jnp.broadcast_to(scene.has_language[:, None], (batch, layout.prefix))
    steps = jnp.concatenate(list(key_masks(layout, scene).values()), axis=2).reshape(batch, -1)
    keys = jnp.concatenate([prefix, steps], axis=1)
    return jnp.logical_and(attention_rule(layout, config.exact_attention), keys[:, None])
