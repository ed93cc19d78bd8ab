"""From a model name to an `OctoPolicy`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from policies.octo.checkpoint import OctoCheckpoint
from policies.octo.images import OctoImages
from policies.octo.language import instructions
from policies.octo.model import OctoModel
from policies.octo.options import action_spec, camera_keys, observation_spec, read_named, rule_of
from policies.octo.policy import OctoPolicy
from policies.octo.statistics import choose
from steer.errors import ConfigError
from steer.model_name import ModelName
from steer.policy import PolicySpec


def load_policy(name: ModelName) -> OctoPolicy:
    """Read a checkpoint and make it a policy; the options are described in `policies.octo`."""
    options = name.options
    checkpoint = read_named(name)
    config = checkpoint.config
    rule = rule_of(options.get("norm", "normal"))
    statistics = choose(checkpoint.statistics, options.get("dataset"), rule, name.place)
    keys = camera_keys(checkpoint, options)
    spec = PolicySpec(
        observation_spec(checkpoint, keys, options),
        action_spec(checkpoint, statistics, rule, options),
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


def _images(checkpoint: OctoCheckpoint, keys: Mapping[str, str], crop: str) -> OctoImages:
    if crop not in ("yes", "no"):
        raise ConfigError(f"option crop={crop!r}: expected yes or no")
    sizes = tuple((key, *checkpoint.image_sizes[name]) for name, key in keys.items())
    # Only the first camera was cropped in training.
    first = checkpoint.config.cameras[0].name
    return OctoImages(sizes, (keys[first],) if crop == "yes" and first in keys else ())


def _version(checkpoint: OctoCheckpoint, options: Mapping[str, str]) -> str:
    """The weights, and the options that change what is sampled."""
    cameras = checkpoint.config.camera_names
    names = ("dataset", "norm", "window", "crop", *cameras)
    settings = ";".join(f"{name}={options[name]}" for name in sorted(names) if name in options)
    suffix = f"-{hashlib.sha256(settings.encode()).hexdigest()[:6]}" if settings else ""
    return f"{checkpoint.version}{suffix}"
