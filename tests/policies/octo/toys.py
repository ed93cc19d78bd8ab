"""Small and published Octo checkpoints: where they are, how their configuration reads, and how to write a changed one."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from policies.octo.checkpoint import unpack_arrays

GOLDEN = Path(__file__).parents[2] / "golden" / "octo"
TINY = GOLDEN / "octo15_tiny"
WEIGHTS = Path("300000/default/checkpoint")


def module(kind: str, name: str, **kwargs: Any) -> dict[str, Any]:
    """As config.json names modules."""
    return {"module": f"octo.model.components.{kind}", "name": name, "args": [], "kwargs": kwargs}


def published_config(width: int, layers: int, heads: int, mlp: int, version: str) -> dict[str, Any]:
    """What matters of the published configurations; `version` is "1.0" or "1.5"."""

    def camera(name: str) -> dict[str, Any]:
        stem = module("vit_encoders", "SmallStem16")
        keys = [f"image_{name}"]
        return module("tokenizers", "ImageTokenizer", encoder=stem, obs_stack_keys=keys, task_stack_keys=keys)

    horizon = "action_horizon" if version == "1.5" else "pred_horizon"
    head = module("action_heads", "DiffusionActionHead", readout_key="readout_action", action_dim=7, **{horizon: 4})
    model: dict[str, Any] = {
        "observation_tokenizers": {name: camera(name) for name in ("primary", "wrist")},
        "task_tokenizers": {"language": module("tokenizers", "LanguageTokenizer", encoder="t5-base")},
        "heads": {"action": head},
        "readouts": {"action": 1},
        "token_embedding_size": width,
        "transformer_kwargs": {"num_layers": layers, "num_attention_heads": heads, "mlp_dim": mlp},
        "max_horizon": 10,
    }
    if version == "1.5":
        model |= {"repeat_task_tokens": True, "use_correct_attention": True}
    return {"model": model, "window_size": 2}


def copy_tiny(folder: Path, without: tuple[str, ...] = ()) -> Path:
    """A copy of the small 1.5 checkpoint that a test may change."""
    shutil.copytree(TINY, folder, ignore=shutil.ignore_patterns(*without) if without else None)
    return folder


def edit_json(file: Path, edit: Callable[[Any], None]) -> None:
    """Change a JSON file in place."""
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))


def edit_weights(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Change the nested parameters of a copy in place."""
    tree = copy.deepcopy(unpack_arrays((folder / WEIGHTS).read_bytes()))
    edit(tree)
    (folder / WEIGHTS).write_bytes(msgpack.packb(tree, default=_pack))


def _pack(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return msgpack.ExtType(1, msgpack.packb([value.shape, value.dtype.name, value.tobytes()]))
    raise TypeError(f"cannot pack {type(value)}")


def at(tree: Mapping[str, Any], path: str) -> Any:
    """The entry "a/b/c"."""
    for name in path.split("/"):
        tree = tree[name]
    return tree
