"""Reading Octo checkpoints of the versions 1.0 and 1.5 as they were published. No TensorFlow, no Orbax, no jax.

    config.json  dataset_statistics.json  example_batch.msgpack  STEP/default/checkpoint

`checkpoint` is one MessagePack document: nested names, and arrays (`steer.flax_arrays`).
Everything else in the folder (marks of a finished upload, `_METADATA`) is left alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from policies.octo.config import T5_BY_NAME, OctoConfig, T5Config, parse_config
from policies.octo.shapes import TRANSFORMER, image_tokens, parameter_shapes
from policies.octo.statistics import Statistics, read_statistics
from steer.errors import CheckpointError
from steer.flax_arrays import unpack_array


@dataclass(frozen=True)
class OctoCheckpoint:
    """A checked checkpoint: every parameter that the configuration asks for is there in its shape.

    image_sizes: camera name -> (height, width); weights: path -> float32 array; version: hash of the files.
    """

    config: OctoConfig
    t5: T5Config
    image_sizes: Mapping[str, tuple[int, int]]
    weights: Mapping[str, NDArray[np.float32]]
    statistics: Mapping[str, Statistics]
    version: str


def read_octo(folder: Path, step: int | None = None) -> OctoCheckpoint:
    """Read and check a folder; step: which one, the latest unless given. Raises `CheckpointError`."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder: check the path")
    config = parse_config(_json(folder / "config.json"), f"{folder}/config.json")
    file = _weights_file(folder, step)
    packed = _bytes(file)
    weights = dict(_flatten(_unpack(packed, file)))
    t5 = _t5(folder, config)
    sizes = _image_sizes(folder, config, weights)
    wanted = parameter_shapes(config, t5, {name: image_tokens(*size) for name, size in sizes.items()})
    _require(file, weights, wanted)
    statistics_file = folder / "dataset_statistics.json"
    statistics = read_statistics(_json(statistics_file), config.head.action_dim, str(statistics_file))
    digest = hashlib.sha256(packed)
    for name in ("config.json", "dataset_statistics.json"):
        digest.update(_bytes(folder / name))
    return OctoCheckpoint(
        config, t5, sizes, {name: weights[name] for name in wanted}, statistics, digest.hexdigest()[:12]
    )


def unpack_arrays(packed: bytes) -> Any:
    """Nested dictionaries of arrays from MessagePack. Raises `ValueError` for anything that is not that."""
    return msgpack.unpackb(packed, ext_hook=unpack_array, strict_map_key=False)


def _weights_file(folder: Path, step: int | None) -> Path:
    steps = sorted(int(entry.name) for entry in folder.iterdir() if entry.is_dir() and entry.name.isdecimal())
    if not steps:
        raise CheckpointError(f"{folder}: no step folder such as 300000: not an Octo checkpoint, or an incomplete one")
    chosen = steps[-1] if step is None else step
    if chosen not in steps:
        raise CheckpointError(f"{folder}: no step {chosen}; there are {steps}: give one of these as ?step=")
    file = folder / str(chosen) / "default" / "checkpoint"
    if not file.is_file():
        inside = sorted(entry.name for entry in file.parent.iterdir()) if file.parent.is_dir() else []
        hint = (
            "a newer Orbax wrote it: save it again as one MessagePack file"
            if "manifest.ocdbt" in inside
            else ("copy the checkpoint again")
        )
        raise CheckpointError(f"{file}: no such file; its folder holds {inside}: {hint}")
    return file


def _unpack(packed: bytes, file: Path) -> dict[str, Any]:
    try:
        tree = unpack_arrays(packed)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise CheckpointError(f"{file}: not readable as MessagePack ({error}): copy the checkpoint again") from error
    if not isinstance(tree, dict):
        raise CheckpointError(f"{file}: holds a {type(tree).__name__}, expected names with arrays")
    return tree


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", value


def _t5(folder: Path, config: OctoConfig) -> T5Config:
    """Dimensions of the language encoder: from the folder of its name, or known by that name."""
    file = folder / config.encoder / "config.json"
    if not file.exists():
        if config.encoder not in T5_BY_NAME:
            raise CheckpointError(
                f"{folder}: dimensions of the language encoder {config.encoder!r} are not known: "
                f"known are {sorted(T5_BY_NAME)}; for another put its config.json at {file}"
            )
        return T5_BY_NAME[config.encoder]
    content = _json(file)
    if content.get("feed_forward_proj", "relu") != "relu":
        raise CheckpointError(f"{file}: feed_forward_proj is {content['feed_forward_proj']!r}, expected 'relu'")
    try:
        return T5Config(
            **{key: int(content[key]) for key in ("vocab_size", "d_model", "num_layers", "num_heads", "d_kv", "d_ff")},
            num_buckets=int(content.get("relative_attention_num_buckets", 32)),
            max_distance=int(content.get("relative_attention_max_distance", 128)),
            epsilon=float(content.get("layer_norm_epsilon", 1e-6)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{file}: {error} is missing or no number: copy the encoder's configuration") from error


def _image_sizes(folder: Path, config: OctoConfig, weights: Mapping[str, NDArray[Any]]) -> dict[str, tuple[int, int]]:
    """From the example batch; where there is none, images are taken to be squares of as many tokens as there are positions."""
    file = folder / "example_batch.msgpack"
    example = _unpack(_bytes(file), file).get("observation", {}) if file.exists() else {}
    sizes = {}
    for camera in config.cameras:
        positions = weights.get(f"{TRANSFORMER}/obs_{camera.name}_pos_embedding")
        if camera.key in example:
            height, width = example[camera.key].shape[-3:-1]
            sizes[camera.name] = (int(height), int(width))
        elif positions is not None and positions.ndim == 4:
            side = 16 * round(positions.shape[2] ** 0.5)
            sizes[camera.name] = (side, side)
        else:
            raise CheckpointError(f"{folder}: camera {camera.name!r} is configured, but has no parameters")
    return sizes


def _require(file: Path, weights: Mapping[str, Any], wanted: Mapping[str, tuple[int, ...]]) -> None:
    missing = sorted(set(wanted) - set(weights))
    if missing:
        raise CheckpointError(
            f"{file}: lacks {len(missing)} arrays, the first {missing[:3]}: copy the checkpoint again"
        )
    for name, shape in wanted.items():
        value = weights[name]
        if not isinstance(value, np.ndarray) or value.shape != shape:
            got = value.shape if isinstance(value, np.ndarray) else type(value).__name__
            raise CheckpointError(f"{file}: {name} has shape {got}, expected {shape}: it does not fit config.json")
        if value.dtype != np.float32:
            raise CheckpointError(f"{file}: {name} is {value.dtype}, expected float32")
        if not np.isfinite(value).all():
            raise CheckpointError(f"{file}: {name} has values that are not finite: the checkpoint is damaged")


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{file}: cannot be read ({error.strerror}): not an Octo checkpoint, or an incomplete one"
        ) from error


def _json(file: Path) -> Any:
    try:
        return json.loads(_bytes(file))
    except ValueError as error:
        raise CheckpointError(f"{file}: not readable as JSON ({error}): copy the checkpoint again") from error
