"""`describe`: what a LeRobot checkpoint says of itself. Reads its JSON files and headers; LeRobot is not needed."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from policies.lerobot.features import (
    DEFAULT_RATE_HZ,
    SIDECAR,
    Sidecar,
    action_spec,
    input_features,
    observation_spec,
    read_json,
    read_sidecar,
)
from policies.lerobot.folder import WEIGHTS, check_folder
from policies.lerobot.steps import PRE, action_statistics, read_steps, rename_map
from steer.description import Description
from steer.description import Sidecar as Draft
from steer.errors import CheckpointError
from steer.model_name import ModelName
from steer.options import number

_STOCHASTIC = {"act": False, "pi0_fast": "where its temperature is above 0"}
_SEEDING = {"vqbet": "per call", "pi0_fast": "per call"}
PROVEN = ("diffusion", "act")
"""Types that are compared with LeRobot's own outputs."""


def describe(name: ModelName, options: tuple[str, ...]) -> Description:
    """Check the folder and say what is in it. options: that the family has."""
    name.refuse_unknown(*options)
    folder = Path(name.place)
    kind = check_folder(folder)
    config = read_json(folder / "config.json")
    sidecar = read_sidecar(folder)
    window, horizon = _lengths(kind, config, folder)
    features = input_features(config, rename_map(read_steps(folder / PRE)), folder / "config.json")
    observation, sources = observation_spec(features, window, sidecar)
    rate = number(name.options, "rate_hz", DEFAULT_RATE_HZ)
    action = action_spec(_action_size(config, folder), action_statistics(folder), sidecar, rate)
    facts = {
        "type": kind,
        "parameters": _parameters(folder / WEIGHTS),
        "horizon": horizon,
        "stochastic": _STOCHASTIC.get(kind, True),
        "seeding": _SEEDING.get(kind, "per request"),
        "inputs": {feature: source.key for feature, source in sources.items()},
        "compared with LeRobot": kind in PROVEN,
    }
    draft = sidecar or Sidecar(action, observation.arrays)
    return Description(facts, observation, action, sidecar=Draft(draft, str(folder / SIDECAR)))


def _lengths(kind: str, config: Mapping[str, Any], folder: Path) -> tuple[int, int]:
    """Frames of history, and steps of a chunk: as `policies.lerobot.sampling` takes them from LeRobot's configuration."""
    whole = kind == "act" and config.get("temporal_ensemble_coeff") is not None
    steps = "action_chunk_size" if kind == "vqbet" else "chunk_size" if whole else "n_action_steps"
    try:
        window = int(config["n_obs_steps"]) if kind in ("diffusion", "vqbet") else 1
        return window, int(config[steps])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{folder}: config.json: {error} is missing or no number: not as LeRobot wrote it"
        ) from error


def _action_size(config: Mapping[str, Any], folder: Path) -> int:
    try:
        return int(config["output_features"]["action"]["shape"][0])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CheckpointError(f"{folder}: config.json states no shape of the action ({error!r})") from error


def _parameters(file: Path) -> int:
    try:
        with safe_open(file, framework="np") as weights:
            return sum(prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118  # no mapping
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file}: not readable as safetensors ({error}): copy the checkpoint again") from error
