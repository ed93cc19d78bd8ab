"""From a model name to an `OctoPolicy`: options, the action spec, and which camera is which observation."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from policies.octo.checkpoint import OctoCheckpoint, read_octo
from policies.octo.images import OctoImages
from policies.octo.language import instructions
from policies.octo.model import OctoModel
from policies.octo.policy import OctoPolicy
from policies.octo.statistics import RULES, Rule, Statistics, choose, unnormalise
from steer.action import ActionSpec
from steer.draft import draft_robot
from steer.errors import ConfigError
from steer.model_name import ModelName
from steer.observation import ObservationSpec
from steer.options import integer, number
from steer.policy import PolicySpec
from steer.robot import read_robot
from steer.spec import ArraySpec

OPTIONS = ("dataset", "step", "tokenizer", "instructions", "norm", "robot", "rate_hz", "window", "crop")
# The rate of the WidowX of the Bridge data; others state theirs.
RATE_HZ = 5.0


def load_policy(name: ModelName) -> OctoPolicy:
    """Read a checkpoint and make it a policy; the options are described in `policies.octo`."""
    options = name.options
    step = integer(options, "step", 0) if "step" in options else None
    checkpoint = read_octo(Path(name.place), step)
    config = checkpoint.config
    name.refuse_unknown(*OPTIONS, *config.camera_names)
    rule = _rule(options.get("norm", "normal"))
    statistics = choose(checkpoint.statistics, options.get("dataset"), rule, name.place)
    keys = _keys(checkpoint, options)
    arrays = tuple(ArraySpec(key, "uint8", (-1, -1, 3), unit="rgb") for key in keys.values())
    window = integer(options, "window", config.window)
    if not 1 <= window <= config.max_window:
        raise ConfigError(f"option window={window}: expected 1 to {config.max_window} frames")
    spec = PolicySpec(
        ObservationSpec(arrays, window),
        _action_spec(checkpoint, statistics, rule, options),
        config.head.horizon,
        trainable=False,
    )
    return OctoPolicy(
        OctoModel(config, checkpoint.t5, checkpoint.weights),
        spec,
        _version(checkpoint, options),
        keys=keys,
        images=_images(checkpoint, keys, options.get("crop", "no")),
        instructions=instructions(
            options.get("tokenizer"),
            options.get("instructions"),
            config.language_tokens,
            checkpoint.t5.vocab_size,
            checkpoint.t5.d_model,
        ),
        statistics=statistics,
        rule=rule,
    )


def _rule(text: str) -> Rule:
    for rule in RULES:
        if rule == text:
            return rule
    raise ConfigError(f"option norm={text!r}: expected one of {list(RULES)}")


def _keys(checkpoint: OctoCheckpoint, options: Mapping[str, str]) -> dict[str, str]:
    """Camera -> observation key; a camera with an empty option is left out."""
    keys = {camera.name: options.get(camera.name, camera.key) for camera in checkpoint.config.cameras}
    kept = {name: key for name, key in keys.items() if key}
    if not kept:
        raise ConfigError(f"every camera of {list(keys)} is left out: the model must see at least one")
    if len(set(kept.values())) != len(kept):
        raise ConfigError(f"cameras {kept} share an observation: give each its own key")
    return kept


def _images(checkpoint: OctoCheckpoint, keys: Mapping[str, str], crop: str) -> OctoImages:
    if crop not in ("yes", "no"):
        raise ConfigError(f"option crop={crop!r}: expected yes or no")
    sizes = tuple((key, *checkpoint.image_sizes[name]) for name, key in keys.items())
    # Only the first camera was cropped in training.
    first = checkpoint.config.cameras[0].name
    return OctoImages(sizes, (keys[first],) if crop == "yes" and first in keys else ())


def _action_spec(
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


def _version(checkpoint: OctoCheckpoint, options: Mapping[str, str]) -> str:
    """The weights, and the options that change what is sampled."""
    cameras = checkpoint.config.camera_names
    names = ("dataset", "norm", "window", "crop", *cameras)
    settings = ";".join(f"{name}={options[name]}" for name in sorted(names) if name in options)
    suffix = f"-{hashlib.sha256(settings.encode()).hexdigest()[:6]}" if settings else ""
    return f"{checkpoint.version}{suffix}"
