"""Small V-GPS agents: the golden checkpoint, and files like it with numbers of our own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from critics.vgps.bounds import PUBLISHED
from critics.vgps.config import Stated
from critics.vgps.critic import VGPSCritic
from critics.vgps.flax_checkpoint import locate, read_arrays
from critics.vgps.language import EmbeddingTable
from steer.spec import Array

GOLDEN = Path(__file__).parents[2] / "golden" / "vgps"
DIRECTORY_FORM = GOLDEN / "ckpt_dir" / "checkpoint_500000"
FILE_FORM = GOLDEN / "ckpt_file" / "checkpoint_500000"
INSTRUCTIONS = ("", "put the spoon on the towel", "open the drawer")
SMALL = Stated(image_size=(32, 32))


def table(size: int = 512) -> EmbeddingTable:
    return EmbeddingTable(INSTRUCTIONS, np.random.default_rng(0).normal(size=(3, size)).astype(np.float32))


def critic(path: Path = FILE_FORM, stated: Stated = SMALL, **changes: Any) -> VGPSCritic:
    return VGPSCritic.from_flax(path, PUBLISHED["bridge"], table(), stated=stated, **changes)


def arrays(path: Path = FILE_FORM) -> dict[str, Array]:
    """The target critic's arrays of a checkpoint."""
    return dict(read_arrays(locate(path), ("state", "target_params", "modules_critic")))


def packed(value: Array) -> msgpack.ExtType:
    return msgpack.ExtType(1, msgpack.packb([list(value.shape), value.dtype.name, value.tobytes()]))


def write_agent(path: Path, arrays: Mapping[str, Array], **further: Any) -> Path:
    """A checkpoint in file form with these arrays under `target_params/modules_critic`."""
    root: dict[str, Any] = {}
    for name, value in arrays.items():
        *parents, leaf = name.split("/")
        node = root
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = packed(value)
    state = {**further, "target_params": {"modules_actor": {}, "modules_critic": root}}
    path.write_bytes(msgpack.packb({"state": state}))
    return path
