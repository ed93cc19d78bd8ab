"""Names and shapes of every parameter, from the configuration alone: what a checkpoint is checked against. No jax, no arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from policies.octo.config import CameraConfig, HeadConfig, OctoConfig, T5Config

Shape = tuple[int, ...]
Named = Iterator[tuple[str, Shape]]

TRANSFORMER = "octo_transformer"
STACK = f"{TRANSFORMER}/BlockTransformer_0/Transformer_0"
T5 = f"{TRANSFORMER}/task_tokenizers_language/hf_model"
HEAD = "heads_action/diffusion_model"


def parameter_shapes(config: OctoConfig, t5: T5Config, tokens: Mapping[str, int]) -> dict[str, Shape]:
    """Path ("a/b/c") -> shape. tokens: camera name -> tokens of one image."""
    found: dict[str, Shape] = {}
    for camera in config.cameras:
        found.update(_camera(config, camera, tokens[camera.name]))
    found.update(_t5(t5))
    found.update(_projection(f"{TRANSFORMER}/task_language", t5.d_model, config.width))
    found[f"{TRANSFORMER}/task_language_pos_embedding"] = (1, config.language_tokens, config.width)
    for name, count in config.readouts:
        found[f"{TRANSFORMER}/{name}_pos_embedding"] = (1, config.max_window, count, config.width)
    for layer in range(config.layers):
        found.update(_block(f"{STACK}/encoderblock_{layer}", config))
    found.update(_norm(f"{STACK}/encoder_norm", config.width))
    found.update(_head(config.head, config.width))
    return found


def image_tokens(height: int, width: int) -> int:
    """Tokens of one image: four convolutions of stride two, each rounding up."""
    return -(-height // 16) * -(-width // 16)


def _dense(path: str, inputs: int, outputs: int) -> Named:
    yield f"{path}/kernel", (inputs, outputs)
    yield f"{path}/bias", (outputs,)


def _norm(path: str, channels: int) -> Named:
    yield f"{path}/scale", (channels,)
    yield f"{path}/bias", (channels,)


def _projection(path: str, inputs: int, width: int) -> Named:
    return _dense(f"{path}_projection", inputs, width)


def _camera(config: OctoConfig, camera: CameraConfig, tokens: int) -> Named:
    stem = f"{TRANSFORMER}/observation_tokenizers_{camera.name}/SmallStem16_0"
    channels = 6 if camera.goal else 3
    for i, features in enumerate(camera.features):
        yield f"{stem}/StdConv_{i}/kernel", (3, 3, channels, features)
        yield f"{stem}/StdConv_{i}/bias", (features,)
        yield from _norm(f"{stem}/GroupNorm_{i}", features)
        channels = features
    yield f"{stem}/embedding/kernel", (1, 1, channels, camera.num_features)
    yield f"{stem}/embedding/bias", (camera.num_features,)
    yield from _projection(f"{TRANSFORMER}/obs_{camera.name}", camera.num_features, config.width)
    yield f"{TRANSFORMER}/obs_{camera.name}_pos_embedding", (1, config.max_window, tokens, config.width)


def _block(path: str, config: OctoConfig) -> Named:
    width, heads = config.width, config.heads
    attention = f"{path}/MultiHeadDotProductAttention_0"
    for name in ("query", "key", "value"):
        yield f"{attention}/{name}/kernel", (width, heads, width // heads)
        yield f"{attention}/{name}/bias", (heads, width // heads)
    yield f"{attention}/out/kernel", (heads, width // heads, width)
    yield f"{attention}/out/bias", (width,)
    yield from _norm(f"{path}/LayerNorm_0", width)
    yield from _norm(f"{path}/LayerNorm_1", width)
    yield from _dense(f"{path}/MlpBlock_0/Dense_0", width, config.mlp)
    yield from _dense(f"{path}/MlpBlock_0/Dense_1", config.mlp, width)


def _t5(t5: T5Config) -> Named:
    inner = t5.num_heads * t5.d_kv
    yield f"{T5}/shared/embedding", (t5.vocab_size, t5.d_model)
    for i in range(t5.num_layers):
        layer = f"{T5}/encoder/block/{i}/layer"
        for name in ("q", "k", "v"):
            yield f"{layer}/0/SelfAttention/{name}/kernel", (t5.d_model, inner)
        yield f"{layer}/0/SelfAttention/o/kernel", (inner, t5.d_model)
        if i == 0:
            yield f"{layer}/0/SelfAttention/relative_attention_bias/embedding", (t5.num_buckets, t5.num_heads)
        yield f"{layer}/0/layer_norm/weight", (t5.d_model,)
        yield f"{layer}/1/DenseReluDense/wi/kernel", (t5.d_model, t5.d_ff)
        yield f"{layer}/1/DenseReluDense/wo/kernel", (t5.d_ff, t5.d_model)
        yield f"{layer}/1/layer_norm/weight", (t5.d_model,)
    yield f"{T5}/encoder/final_layer_norm/weight", (t5.d_model,)


def _head(head: HeadConfig, width: int) -> Named:
    net = f"{HEAD}/reverse_network"
    flat = head.horizon * head.action_dim
    yield f"{HEAD}/time_preprocess/kernel", (head.time_dim // 2, 1)
    yield from _dense(f"{HEAD}/cond_encoder/Dense_0", head.time_dim, 2 * head.time_dim)
    yield from _dense(f"{HEAD}/cond_encoder/Dense_1", 2 * head.time_dim, head.time_dim)
    yield from _dense(f"{net}/Dense_0", head.time_dim + width + flat, head.hidden)
    for i in range(head.blocks):
        block = f"{net}/MLPResNetBlock_{i}"
        if head.layer_norm:
            yield from _norm(f"{block}/LayerNorm_0", head.hidden)
        yield from _dense(f"{block}/Dense_0", head.hidden, 4 * head.hidden)
        yield from _dense(f"{block}/Dense_1", 4 * head.hidden, head.hidden)
    yield from _dense(f"{net}/Dense_1", head.hidden, flat)
