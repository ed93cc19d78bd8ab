"""Reads some of the arrays of a Flax checkpoint, and skips the rest of the file without unpacking it.

On disk a checkpoint is one MessagePack map of maps whose leaves are arrays (`steer.flax_arrays`). Two forms are in use:

    checkpoint_500000/checkpoint    directory form (what Orbax writes in its "aggregate" mode), `_METADATA` beside it
    checkpoint_500000               single-file form (what flax itself writes)

A whole agent of 1.6 GB is mostly optimiser state. It passes by in slices and is never held; nothing is pickled.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from steer.errors import CheckpointError
from steer.flax_arrays import unpack_array
from steer.spec import Array

_SLICE_BYTES = 1 << 20
_LARGEST_LEAF_BYTES = 2**31 - 1


def locate(path: Path) -> Path:
    """The MessagePack file of a checkpoint: of either form, or of the latest step in a folder of checkpoints."""
    if path.is_file():
        return path
    if (path / "checkpoint").is_file():
        return path / "checkpoint"
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such file or folder: give a Flax checkpoint (checkpoint_STEP)")
    steps = {
        int(match[1]): entry for entry in path.iterdir() if (match := re.fullmatch(r"checkpoint_(\d+)", entry.name))
    }
    if not steps:
        raise CheckpointError(
            f"{path}: holds neither a file 'checkpoint' nor entries 'checkpoint_STEP': give the folder or file of one checkpoint"
        )
    return locate(steps[max(steps)])


def read_arrays(file: Path, path: Sequence[str]) -> Iterator[tuple[str, Array]]:
    """The arrays below `path` (("state", "target_params", ...)), by their names with "/" between the parts.

    Each is let go of when the next is asked for. Reading stops behind them. Raises `CheckpointError` when the file is no such
    checkpoint, is cut off before their end, or has no such path (the error then names what is there).
    """
    yield from _flatten(_subtree(file, path), "", file)


def _subtree(file: Path, path: Sequence[str]) -> Any:
    try:
        with file.open("rb") as stream:
            unpacker = msgpack.Unpacker(
                stream,
                read_size=_SLICE_BYTES,
                max_buffer_size=_LARGEST_LEAF_BYTES,
                ext_hook=unpack_array,
                strict_map_key=False,
            )
            _descend(unpacker, path, file)
            return unpacker.unpack()
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror}): check the path") from error
    except msgpack.OutOfData as error:
        raise CheckpointError(f"{file}: ends before {'/'.join(path)} does: copy the checkpoint again") from error
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise CheckpointError(f"{file}: not a Flax checkpoint in MessagePack form ({error})") from error


def _descend(unpacker: Any, path: Sequence[str], file: Path) -> None:
    """Go down map by map to the value at `path`; siblings are skipped, not unpacked."""
    for depth, wanted in enumerate(path):
        seen = []
        for _ in range(unpacker.read_map_header()):
            seen.append(unpacker.unpack())
            if seen[-1] == wanted:
                break
            unpacker.skip()
        else:
            where = "/".join(path[:depth]) or "the root"
            raise CheckpointError(f"{file}: {where} has no {wanted!r}, only {seen}: not a checkpoint of such an agent")


def _flatten(node: Any, prefix: str, file: Path) -> Iterator[tuple[str, Array]]:
    """Names and arrays; the maps are emptied on the way, so that an array lives no longer than it is looked at."""
    if isinstance(node, np.ndarray):
        yield prefix, node
    elif isinstance(node, dict):
        for key in list(node):
            yield from _flatten(node.pop(key), f"{prefix}/{key}" if prefix else str(key), file)
    else:
        raise CheckpointError(f"{file}: {prefix} is {str(node)[:60]!r}, expected an array stored in this very file")
