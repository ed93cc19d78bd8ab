"""What the options of a model's name say: which step, cameras, statistics and robot. Imports no jax."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from policies.octo.checkpoint import OctoCheckpoint, read_octo
from policies.octo.statistics import RULES, Rule, Statistics, unnormalise
from steer.action import ActionSpec
from steer.draft import draft_robot
from steer.errors import ConfigError
from steer.model_name import ModelName
from steer.observation import ObservationSpec
from steer.options import integer, number
from steer.robot import read_robot
from steer.spec import ArraySpec

OPTIONS = ("dataset", "step", "tokenizer", "instructions", "norm", "robot", "rate_hz", "window", "crop")
# The rate of the WidowX of the Bridge data; others state theirs.
RATE_HZ = 5.0


def read_named(name: ModelName) -> OctoCheckpoint:
    """The checkpoint that is named; raises `ConfigError` for an option that it does not have."""
    step = integer(name.options, "step", 0) if "step" in name.options else None
    checkpoint = read_octo(Path(name.place), step)
    name.refuse_unknown(*OPTIONS, *checkpoint.config.camera_names)
    return checkpoint


def rule_of(text: str) -> Rule:
    """How actions are scaled, see `policies.octo.statistics`."""
    for rule in RULES:
        if rule == text:
            return rule
    raise ConfigError(f"option norm={text!r}: expected one of {list(RULES)}")


def camera_keys(checkpoint: OctoCheckpoint, options: Mapping[str, str]) -> dict[str, str]:
    """Camera -> observation key; a camera with an empty option is left out."""
    keys = {camera.name: options.get(camera.name, camera.key) for camera in checkpoint.config.cameras}
    kept = {name: key for name, key in keys.items() if key}
    if not kept:
        raise ConfigError(f"every camera of {list(keys)} is left out: the model must see at least one")
    if len(set(kept.values())) != len(kept):
        raise ConfigError(f"cameras {kept} share an observation: give each its own key")
    return kept


def observation_spec(
    checkpoint: OctoCheckpoint, keys: Mapping[str, str], options: Mapping[str, str]
) -> ObservationSpec:
    """Images of any size, and the window that was asked for."""
    config = checkpoint.config
    window = integer(options, "window", config.window)
    if not 1 <= window <= config.max_window:
        raise ConfigError(f"option window={window}: expected 1 to {config.max_window} frames")
    return ObservationSpec(tuple(ArraySpec(key, "uint8", (-1, -1, 3), unit="rgb") for key in keys.values()), window)


def action_spec(
    checkpoint: OctoCheckpoint, statistics: Statistics, rule: Rule, options: Mapping[str, str]
) -> ActionSpec:
    """Of the robot's sidecar; without one, bounds are all that the clipped sampler can give and the rest is unknown."""
    if "robot" in options:
        if "rate_hz" in options:
            raise ConfigError("options robot and rate_hz are both given: the sidecar states the rate")
        action = read_robot(Path(options["robot"])).action
        if action.size != statistics.size:
            raise ConfigError(
                f"{options['robot']}: {action.size} action axes, but the data set has {statistics.size}: "
                "give the sidecar of the robot that the data set was recorded with"
            )
        return action
    edge = np.full(checkpoint.config.head.action_dim, checkpoint.config.head.max_action, np.float32)
    bounds = unnormalise(np.stack([-edge, edge]), statistics, rule)
    return draft_robot("octo", bounds, (), number(options, "rate_hz", RATE_HZ)).action
