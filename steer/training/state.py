"""Training state on disk: nested dicts of tensors and JSON values, as safetensors and JSON; never pickle.

    FOLDER/step-000001200/state.json          the tree, with the names of the tensors in it and the hash of the other file
    FOLDER/step-000001200/state.safetensors   the tensors

A step is published by one rename and only then are older ones removed: whatever happens, the last good state is there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from steer.errors import CheckpointError
from steer.files import fsync_tree, publish_folder

_TREE, _TENSORS = "state.json", "state.safetensors"
# A JSON object with exactly one of these keys stands for what JSON has no word for.
_TENSOR, _ARRAY, _TUPLE, _ITEMS = "$tensor", "$array", "$tuple", "$items"


def write_state(folder: Path, step: int, state: Any) -> Path:
    """Publish the state of `step` below `folder`, then remove older ones. Raises `CheckpointError` when it cannot."""
    target = folder / f"step-{step:09d}"
    aside = folder / f".step-{step:09d}.{os.getpid()}"
    tensors: dict[str, Tensor] = {}
    tree = _flatten(state, "state", tensors)
    try:
        aside.mkdir(parents=True)
        save_file(tensors, aside / _TENSORS)
        document = {"step": step, "sha256": _sha256(aside / _TENSORS), "state": tree}
        (aside / _TREE).write_text(json.dumps(document))
        fsync_tree(aside)
        shutil.rmtree(target, ignore_errors=True)
        publish_folder(aside, target)
    except (OSError, SafetensorError) as error:
        kept = latest_step(folder)
        rest = f"the state of step {kept} is intact" if kept is not None else "no earlier state was saved"
        raise CheckpointError(
            f"{target}: cannot save the training state ({error}); {rest}: free space, then resume"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    for step_folder in folder.glob("step-*"):
        if step_folder != target:
            shutil.rmtree(step_folder, ignore_errors=True)
    return target


def latest_step(folder: Path) -> int | None:
    """The step of the newest published state, or None."""
    steps = sorted(int(path.name.removeprefix("step-")) for path in folder.glob("step-*"))
    return steps[-1] if steps else None


def read_state(folder: Path) -> tuple[int, Any]:
    """The newest published state: (step, state). Raises `CheckpointError` when there is none or it is damaged."""
    step = latest_step(folder)
    if step is None:
        raise CheckpointError(f"{folder}: no saved training state: start without --resume")
    path = folder / f"step-{step:09d}"
    try:
        document = json.loads((path / _TREE).read_text())
        if _sha256(path / _TENSORS) != document["sha256"]:
            raise CheckpointError(f"{path}: {_TENSORS} is not what {_TREE} says (truncated or changed): train anew")
        return step, _unflatten(document["state"], load_file(path / _TENSORS))
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot read the training state ({error}): train anew") from error


def _flatten(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """The JSON tree of `value`; tensors and arrays are copied into `tensors` under their place in it."""
    if isinstance(value, Tensor):
        # A copy: safetensors refuses tensors that share memory, as tied or viewed parameters do.
        name = _unused(name, tensors)
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {_TENSOR: name}
    if isinstance(value, np.ndarray):
        name = _unused(name, tensors)
        tensors[name] = torch.from_numpy(value.copy())
        return {_ARRAY: name}
    if isinstance(value, dict):
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {key: _flatten(item, f"{name}/{key}", tensors) for key, item in value.items()}
        return {_ITEMS: [[key, _flatten(item, f"{name}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        items = [_flatten(item, f"{name}/{i}", tensors) for i, item in enumerate(value)]
        return {_TUPLE: items} if isinstance(value, tuple) else items
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(
        f"{name}: a {type(value).__name__} cannot be saved: use tensors, arrays, JSON values and dicts of them"
    )


def _unused(name: str, tensors: dict[str, Tensor]) -> str:
    """The name, or one like it: the keys "1" and 1, or "a/b" and "a" then "b", would share a place."""
    return name if name not in tensors else f"{name}~{len(tensors)}"


def _unflatten(tree: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(tree, list):
        return [_unflatten(item, tensors) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if len(tree) == 1:
        ((key, item),) = tree.items()
        if key == _TENSOR:
            return tensors[item]
        if key == _ARRAY:
            return tensors[item].numpy()
        if key == _TUPLE:
            return tuple(_unflatten(entry, tensors) for entry in item)
        if key == _ITEMS:
            return {name: _unflatten(entry, tensors) for name, entry in item}
    return {key: _unflatten(item, tensors) for key, item in tree.items()}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
