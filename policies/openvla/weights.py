"""Safetensors, in any number of shards, into a module that was built on the meta device: each tensor is allocated once.

Every tensor's name and shape is checked from the files' headers before the first one is read.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from policies.openvla.config import read_json
from steer.errors import CheckpointError

_INDEX = "model.safetensors.index.json"
_BLOCK = 1 << 16


def load_weights(
    module: nn.Module, path: Path, device: torch.device, dtype: torch.dtype, unused: Iterable[str] = ()
) -> None:
    """Fill `module` from the folder. unused: prefixes of names in the files that the module does without.

    Raises `CheckpointError` that lists tensors that are missing, misshapen or too many.
    """
    check_weights(module, path, unused)
    wanted = module.state_dict()
    loaded: dict[str, Tensor] = {}
    for file in weight_files(path):
        with safe_open(file, framework="pt", device=str(device)) as shard:
            for name in shard.keys():  # noqa: SIM118  # it is no mapping
                if name in wanted:
                    loaded[name] = shard.get_tensor(name).to(dtype)
    module.load_state_dict(loaded, assign=True)


def check_weights(module: nn.Module, path: Path, unused: Iterable[str] = ()) -> dict[str, tuple[int, ...]]:
    """Names and shapes of every tensor in the folder, read from the headers; raises `CheckpointError` as `load_weights` does."""
    found: dict[str, tuple[int, ...]] = {}
    for file in weight_files(path):
        found.update(_shapes(file))
    wanted = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    skipped = tuple(unused)
    check_shapes(str(path), wanted, {n: s for n, s in found.items() if n in wanted or not n.startswith(skipped)})
    return found


def weight_files(path: Path) -> list[Path]:
    """The shards of a folder: those of the index, else the one file. Raises `CheckpointError` when one is missing."""
    index = path / _INDEX
    weight_map = read_json(index).get("weight_map", {}) if index.exists() else {"": "model.safetensors"}
    names = sorted(set(weight_map.values()))
    # A name is a file of this folder: an index must not lead elsewhere.
    absent = [name for name in names if Path(name).name != name or not (path / name).is_file()]
    if absent or not names:
        raise CheckpointError(f"{path}: weight files {absent or [_INDEX]} are missing: copy the checkpoint again")
    return [path / name for name in names]


def check_shapes(owner: str, wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> None:
    """Raise `CheckpointError` unless exactly the wanted tensors were found, in their shapes."""
    missing, extra = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    if missing or extra:
        raise CheckpointError(
            f"{owner}: weights do not fit the configuration: {len(missing)} missing {missing[:5]}, "
            f"{len(extra)} unexpected {extra[:5]}"
        )
    for name, shape in wanted.items():
        if found[name] != shape:
            raise CheckpointError(f"{owner}: {name} has shape {found[name]}, expected {shape}")


def fingerprint(path: Path, files: Iterable[Path]) -> str:
    """A name for the weights: a hash over each file's name, size and 64 blocks spread over it (small files: all of it).

    Reading 15 GB a second time would double the time to load.
    """
    digest = hashlib.sha256()
    for file in sorted(files):
        size = file.stat().st_size
        digest.update(f"{file.relative_to(path)}:{size};".encode())
        with file.open("rb") as stream:
            for start in range(0, size, max(_BLOCK, size // 64)):
                stream.seek(start, os.SEEK_SET)
                digest.update(stream.read(_BLOCK))
    return digest.hexdigest()[:12]


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    try:
        with safe_open(file, framework="pt") as shard:
            return {name: tuple(shard.get_slice(name).get_shape()) for name in shard.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file}: not readable as safetensors ({error}): copy the checkpoint again") from error
