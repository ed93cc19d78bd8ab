"""The steps that a checkpoint's pre- and post-processor may consist of: an allow-list.

A pipeline file names its steps. LeRobot also takes a dotted path ("class") there and imports it, which would let a checkpoint run
any code; only steps that LeRobot 0.4.4 itself registers for the policies we run are let through.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from policies.lerobot.features import ACTION, read_json
from steer.errors import CheckpointError
from steer.spec import Array

PRE, POST = "policy_preprocessor.json", "policy_postprocessor.json"
NORMALIZER, UNNORMALIZER = "normalizer_processor", "unnormalizer_processor"
STEPS = frozenset(
    {
        "rename_observations_processor",
        "to_batch_processor",
        "device_processor",
        NORMALIZER,
        UNNORMALIZER,
        "tokenizer_processor",
        "smolvla_new_line_processor",
        "pi0_new_line_processor",
        "pi05_prepare_state_tokenizer_processor_step",
        "pi0_fast_prepare_state_tokenizer_processor_step",
    }
)


def read_steps(path: Path) -> list[dict[str, Any]]:
    """The steps of a pipeline file; raises `CheckpointError` for one that is not in `STEPS`."""
    content = read_json(path)
    steps = content.get("steps") if isinstance(content, dict) else None
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise CheckpointError(f"{path}: holds no list of steps: the checkpoint is damaged, copy it again")
    for step in steps:
        name = step.get("registry_name")
        if "class" in step or name not in STEPS:
            raise CheckpointError(
                f"{path}: step {step.get('class', name)!r} is not loaded: only LeRobot's own registered steps "
                f"{sorted(STEPS)} are, since any other would run code that the checkpoint names"
            )
    return steps


def rename_map(steps: list[dict[str, Any]]) -> dict[str, str]:
    """What a pre-processor calls its inputs: raw name -> the policy's."""
    found: dict[str, str] = next(
        (step["config"]["rename_map"] for step in steps if step["registry_name"].startswith("rename_")), {}
    )
    return found


def state_file(path: Path, steps: list[dict[str, Any]], name: str) -> Path | None:
    """The statistics of the step called `name`, beside the pipeline file `path`; None where there is no such step or file."""
    stated = next((step.get("state_file") for step in steps if step["registry_name"] == name), None)
    if stated is None:
        return None
    if Path(str(stated)).name != stated:
        raise CheckpointError(f"{path}: state file {stated!r} lies outside the checkpoint: nothing there is read")
    return path.with_name(stated)


def action_statistics(folder: Path) -> dict[str, Array]:
    """ "action.min" and so on -> [A]; empty where the post-processor does not un-normalise."""
    statistics = state_file(folder / POST, read_steps(folder / POST), UNNORMALIZER)
    values = {} if statistics is None else load_file(statistics)
    return {name: value for name, value in values.items() if name.startswith(f"{ACTION}.")}
