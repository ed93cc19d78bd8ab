"""Loading a published OpenVLA or OpenVLA-OFT folder: options, action spec, and the parts put together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from policies.openvla.config import PublishedConfig, read_config
from policies.openvla.heads import Head, TokenHead
from policies.openvla.images import ImageProcessor
from policies.openvla.model import OpenVlaModel, restore_rotary
from policies.openvla.policy import Inputs, OpenVlaPolicy, checkpoint_files
from policies.openvla.statistics import Statistics, choose_dataset, read_statistics
from policies.openvla.tokens import ActionBins, PromptTokenizer
from policies.openvla.weights import fingerprint, load_weights
from steer.action import ActionSpec
from steer.draft import draft_robot
from steer.errors import ConfigError, SpecError
from steer.model_name import ModelName
from steer.observation import ObservationSpec
from steer.options import integer, names, number
from steer.policy import PolicySpec
from steer.robot import read_robot
from steer.spec import ArraySpec

OPTIONS = ("unnorm_key", "device", "dtype", "top_k", "instruction", "prompt", "views", "state", "rate_hz")
DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
SIDECAR = "robot.json"
# BridgeData's control rate, at which the base model was shown; a sidecar or an option states another.
_RATE_HZ = 5.0


def load_published(name: ModelName) -> OpenVlaPolicy:
    """`openvla:PATH?unnorm_key=...&device=cuda&dtype=bfloat16`; see `OPTIONS`."""
    name.refuse_unknown(*OPTIONS)
    path, options = Path(name.place), name.options
    config = read_config(path)
    key = choose_dataset(config.statistics, options.get("unnorm_key", ""), str(path))
    statistics = read_statistics(config.statistics, key, "action", str(path))
    model = load_model(config, path, options.get("device", "cpu"), dtype_of(options.get("dtype", config.dtype)))
    head = TokenHead(
        model, ActionBins(config.vocab_size, config.action_bins), statistics.size, integer(options, "top_k", 0)
    )
    views = names(options, "views") or ("image",)
    inputs = Inputs(
        views, "", ImageProcessor.load(path, config.towers), _prompts(config, path, options, len(views), head)
    )
    spec = PolicySpec(
        observation=ObservationSpec(tuple(ArraySpec(view, "uint8", (-1, -1, 3)) for view in views)),
        action=action_spec(path, statistics, options),
        horizon=head.horizon,
        stochastic=head.stochastic,
        temperature=head.temperature,
        trainable=False,
    )
    version = _version(path, key, options)
    return OpenVlaPolicy(spec, version, model, head, inputs, statistics)


def load_model(config: PublishedConfig, path: Path, device: str, dtype: torch.dtype) -> OpenVlaModel:
    """The modules with the folder's weights, ready to run."""
    target = torch.device(device)
    with torch.device("meta"):
        model = OpenVlaModel(config)
    complete = set(model.state_dict())
    for tower in model.vision_backbone.towers:
        tower.drop_unused()
    load_weights(model, path, target, dtype, complete - set(model.state_dict()))
    restore_rotary(model.language_model, target)
    return model.eval().requires_grad_(False)


def dtype_of(text: str) -> torch.dtype:
    """A floating type by its name."""
    if text not in DTYPES:
        raise ConfigError(f"dtype {text!r}: expected one of {sorted(DTYPES)}")
    return DTYPES[text]


def action_spec(path: Path, statistics: Statistics, options: Mapping[str, str]) -> ActionSpec:
    """The sidecar's, else one drafted from the statistics, in which everything else is "unknown"."""
    if (path / SIDECAR).exists():
        stated = read_robot(path / SIDECAR).action
        if stated.size != statistics.size:
            raise SpecError(f"{path / SIDECAR}: {stated.size} action axes, the statistics have {statistics.size}")
        return stated
    rate = number(options, "rate_hz", _RATE_HZ)
    return draft_robot(path.name, statistics.bounds.astype("float32"), (), rate).action


def _prompts(
    config: PublishedConfig, path: Path, options: Mapping[str, str], views: int, head: Head
) -> PromptTokenizer:
    room = config.max_positions - views * config.towers[0].num_patches - head.num_positions
    return PromptTokenizer.load(path, options.get("prompt", "openvla"), options.get("instruction", ""), room)


def _version(path: Path, key: str, options: Mapping[str, str]) -> str:
    """The weights' name; what else changes the candidates is part of it, since caches of candidates are keyed by it."""
    relevant = {name: options[name] for name in ("dtype", "top_k", "instruction", "prompt", "views") if name in options}
    said = "".join(f"-{name}={value}" for name, value in sorted(relevant.items()))
    return f"{fingerprint(path, checkpoint_files(path))}-{key}{said}"
