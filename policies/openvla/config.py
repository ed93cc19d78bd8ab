"""`PublishedConfig`: what `config.json` of a published OpenVLA folder says, read and checked. Imports no torch.

The file states a name for its vision towers, not their sizes, and only those sizes of the language model that differ from
Llama's; the rest is filled in here. Nothing named in it (`auto_map`) is ever imported.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steer.errors import CheckpointError
from steer.serial import from_json


@dataclass(frozen=True)
class TowerConfig:
    """One vision transformer, in timm's terms.

    class_token, reg_tokens: tokens put before the patches; layer_scale: a learned factor per channel after each branch;
    attn_pool: the file also holds a pooling head (never used here).
    """

    embed_dim: int
    depth: int
    num_heads: int
    mlp_hidden: int
    patch_size: int = 14
    img_size: int = 224
    class_token: bool = False
    reg_tokens: int = 0
    layer_scale: bool = False
    attn_pool: bool = False

    @property
    def num_patches(self) -> int:
        return (self.img_size // self.patch_size) ** 2


_TOWERS: Mapping[str, TowerConfig] = {
    "vit_large_patch14_reg4_dinov2.lvd142m": TowerConfig(
        1024, 24, 16, 4096, class_token=True, reg_tokens=4, layer_scale=True
    ),
    "vit_so400m_patch14_siglip_224": TowerConfig(1152, 27, 16, 4304, attn_pool=True),
}

# The defaults of the LlamaConfig that wrote the files; rms_norm_eps is not Llama 2's 1e-5.
_LLAMA: Mapping[str, Any] = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "max_position_embeddings": 2048,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
}


@dataclass(frozen=True)
class PublishedConfig:
    """towers: one per entry of `timm_model_ids`; llama: keyword arguments of a LlamaConfig, `rope_theta` among them.

    vocab_size: of the text, without the padding of the embedding; its last `action_bins` tokens are the action bins.
    """

    towers: tuple[TowerConfig, ...]
    llama: Mapping[str, Any]
    vocab_size: int
    action_bins: int
    dtype: str
    statistics: Mapping[str, Any]

    @property
    def hidden_size(self) -> int:
        return int(self.llama["hidden_size"])

    @property
    def max_positions(self) -> int:
        return int(self.llama["max_position_embeddings"])


def read_config(path: Path) -> PublishedConfig:
    """`config.json` of a published folder. Raises `CheckpointError` for what is missing or not supported."""
    content = read_json(path / "config.json")
    if content.get("model_type") != "openvla":
        raise CheckpointError(
            f"{path}: config.json has model_type {content.get('model_type')!r}, expected 'openvla': give another kind"
        )
    missing = [key for key in ("timm_model_ids", "text_config") if key not in content]
    if missing:
        raise CheckpointError(f"{path}: config.json lacks {missing}: not a published OpenVLA folder")
    llama = _llama(content["text_config"], path)
    return PublishedConfig(
        towers=_towers(content, path),
        llama=llama,
        vocab_size=int(llama["vocab_size"]) - int(content.get("pad_to_multiple_of", 64)),
        action_bins=int(content.get("n_action_bins", 256)),
        dtype=str(content.get("torch_dtype") or "bfloat16"),
        statistics=_statistics(content, path),
    )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises `CheckpointError` that names the file."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file: the checkpoint folder is incomplete, copy it again") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not readable as JSON ({error}): copy the checkpoint again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, expected an object")
    return content


def _towers(content: Mapping[str, Any], path: Path) -> tuple[TowerConfig, ...]:
    names = content["timm_model_ids"]
    stated = content.get("tiny_overrides", {}).get("vit")
    if stated is not None:
        # Small checkpoints made for tests state what a published one implies by its names.
        towers = tuple(from_json(TowerConfig, entry, f"{path}: tiny_overrides") for entry in stated)
    else:
        unknown = [name for name in names if name not in _TOWERS]
        if unknown:
            raise CheckpointError(f"{path}: unknown vision towers {unknown}: this version knows {sorted(_TOWERS)}")
        towers = tuple(_TOWERS[name] for name in names)
    expected = 2 if content.get("use_fused_vision_backbone", True) else 1
    if len(towers) != expected:
        raise CheckpointError(
            f"{path}: {len(towers)} vision towers, expected {expected}: config.json contradicts itself"
        )
    if any(activation for activation in content.get("timm_override_act_layers") or []):
        raise CheckpointError(f"{path}: its vision towers have another activation than GELU, which is not supported")
    return towers


def _llama(stated: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    if stated.get("model_type", "llama") != "llama":
        raise CheckpointError(f"{path}: its language model is a {stated['model_type']!r}, expected 'llama'")
    if stated.get("rope_scaling") is not None:
        raise CheckpointError(f"{path}: rope_scaling {stated['rope_scaling']} is not supported")
    return {key: stated.get(key, default) for key, default in _LLAMA.items()}


def _statistics(content: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """`dataset_statistics.json` replaces the configuration's: a fine-tuned folder keeps the base model's there."""
    beside = path / "dataset_statistics.json"
    statistics = read_json(beside) if beside.exists() else content.get("norm_stats")
    if not isinstance(statistics, dict) or not statistics:
        raise CheckpointError(f"{path}: no statistics in dataset_statistics.json or config.json: actions have no scale")
    return statistics
