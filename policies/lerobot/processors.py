"""LeRobot's own pre- and post-processors of a checkpoint. Runs in LeRobot's environment only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lerobot.policies.factory import make_pre_post_processors  # type: ignore[import-not-found]  # of LeRobot's environment

from policies.lerobot.steps import POST, PRE, action_statistics, read_steps, rename_map
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
    return Processors(pre, post, rename_map(before), action_statistics(folder))
