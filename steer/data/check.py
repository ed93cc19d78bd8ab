"""`check_segment`: is a folder a whole segment that this robot could have recorded? For segments that others wrote.

Everything is decoded once, chunk by chunk, so that memory does not grow with the segment.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from steer.data.parcel import manifest_sizes
from steer.data.segment import MANIFEST, READ_ERRORS, Segment
from steer.errors import SpecError, StoreError
from steer.robot import RobotSpec
from steer.spec import Array

# Of one decoded chunk. The writer aims at 4 MiB, a single image may be larger.
MAX_CHUNK_BYTES = 256 << 20


def check_segment(folder: Path, robot: RobotSpec, files: set[str]) -> int:
    """The number of episodes; raises `SpecError` unless every byte can be read and fits the robot. files: all of its paths."""
    try:
        # First, because nothing else may look for what the manifest says.
        listed = {*manifest_sizes(folder), MANIFEST}
        if listed != files:
            raise ValueError(f"the manifest and the files differ in {sorted(listed ^ files)[:5]}")
        records = Segment(folder).records
        group = zarr.open_group(folder, mode="r", zarr_format=3)
        _check_arrays(dict(_arrays(group, files)), robot, sum(r.length for r in records), len(records))
    except (*READ_ERRORS, AttributeError, StoreError, SpecError) as error:
        reason = error.__cause__ if isinstance(error, StoreError) and error.__cause__ else error
        raise SpecError(f"the segment is damaged, or none of robot {robot.name!r} ({reason})") from error
    return len(records)


def _arrays(group: zarr.Group, files: set[str]) -> Iterator[tuple[str, zarr.Array[Any]]]:
    for name in sorted(path.removesuffix("/zarr.json") for path in files if path.endswith("/zarr.json")):
        node = group[name]
        if isinstance(node, zarr.Array):
            yield name, node


def _check_arrays(arrays: dict[str, zarr.Array[Any]], robot: RobotSpec, steps: int, episodes: int) -> None:
    observed = {name.removeprefix("observations/") for name in arrays if name.startswith("observations/")}
    if observed != set(robot.observation.keys):
        raise SpecError(f"observations {sorted(observed)}, expected {sorted(robot.observation.keys)}")
    for name, array in arrays.items():
        kind, _, key = name.partition("/")
        rows = {"observations": steps + episodes, "episode_ends": episodes, "goal_images": array.shape[0]}
        if array.shape[0] != rows.get(kind, steps):
            raise SpecError(f"{name} has {array.shape[0]} rows, expected {rows.get(kind, steps)}")
        for block in _blocks(array):
            _check_block(kind, key, block, robot)


def _check_block(kind: str, key: str, block: Array, robot: RobotSpec) -> None:
    if kind == "observations":
        robot.observation[key].validate(block, leading=1)
    elif kind == "actions":
        robot.action.validate(block)
    elif kind == "rewards" and (block.dtype != np.float32 or block.ndim != 1 or not np.isfinite(block).all()):
        raise SpecError("rewards: expected one finite float32 per step")


def _blocks(array: zarr.Array[Any]) -> Iterator[Array]:
    """The array in pieces of one chunk of rows each."""
    size = math.prod(array.chunks) * array.dtype.itemsize
    if size > MAX_CHUNK_BYTES:
        raise SpecError(f"{array.name} has chunks of {size} bytes, at most {MAX_CHUNK_BYTES} are read")
    for start in range(0, array.shape[0], array.chunks[0]):
        yield np.asarray(array[start : start + array.chunks[0]])
