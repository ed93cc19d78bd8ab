"""LeRobot's own pre- and post-processors of a checkpoint. Runs in LeRobot's environment only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lerobot.policies.factory import make_pre_post_processors  # type: ignore[import-not-found]  # of LeRobot's environment
from safetensors.numpy import load_file

from policies.lerobot.features import ACTION
from policies.lerobot.steps import POST, PRE, UNNORMALIZER, read_steps, state_file
from steer.spec import Array


@dataclass(frozen=True)
class Processors:
    """pre: batch -> batch. post: normalised actions -> actions. rename: raw feature -> the policy's. statistics: of the actions."""

    pre: Any
    post: Any
    rename: Mapping[str, str]
    statistics: Mapping[str, Array]


def load_processors(folder: Path, config: Any, device: str, tokenizer: str = "") -> Processors:
    """Read both pipelines. tokenizer: a folder to use instead of the name that the checkpoint states."""
    before, after = read_steps(folder / PRE), read_steps(folder / POST)
    names = {step["registry_name"] for step in before}
    overrides = {"device_processor": {"device": device}, "tokenizer_processor": {"tokenizer_name": tokenizer}}
    pre, post = make_pre_post_processors(
        config,
        pretrained_path=str(folder),
        preprocessor_overrides={
            name: value for name, value in overrides.items() if name in names and all(value.values())
        },
        # Actions are un-normalised where the model runs, whatever device the checkpoint was trained on.
        postprocessor_overrides={
            step["registry_name"]: {"device": device} for step in after if step["registry_name"] == "device_processor"
        },
    )
    rename: Mapping[str, str] = next(
        (s["config"]["rename_map"] for s in before if s["registry_name"].startswith("rename_")), {}
    )
    statistics = state_file(folder / POST, after, UNNORMALIZER)
    values = {} if statistics is None else load_file(statistics)
    return Processors(
        pre, post, rename, {name: value for name, value in values.items() if name.startswith(f"{ACTION}.")}
    )
