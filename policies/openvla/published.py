"""Loading a published OpenVLA or OpenVLA-OFT folder: options, action spec, and the parts put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from policies.openvla.config import PublishedConfig, read_config
from policies.openvla.heads import Head, TokenHead
from policies.openvla.images import ImageProcessor
from policies.openvla.model import OpenVlaModel, restore_rotary
from policies.openvla.oft import Layout
from policies.openvla.oft_loading import default_horizon, is_oft, load_head, load_proprio
from policies.openvla.policy import Inputs, OpenVlaPolicy, checkpoint_files
from policies.openvla.statistics import Statistics, choose_dataset, read_statistics
from policies.openvla.tokens import ActionBins, PromptTokenizer, end_token
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

OPTIONS: Mapping[str, str] = {
    "unnorm_key": "data set whose statistics scale the actions",
    "device": "cpu, cuda, cuda:1",
    "dtype": "float32, bfloat16 or float16; the stored one unless given",
    "top_k": "draw only from so many of the likeliest tokens",
    "instruction": "for tasks that bring none",
    "prompt": "openvla, or openvla-v01 for the older template",
    "views": "image keys, in the model's order",
    "state": "key of the proprioception",
    "rate_hz": "control rate of the drafted action spec",
    "evaluation_crop": "true: JPEG, Lanczos and centre crop before the processor, as LIBERO fine-tunes are evaluated",
    "decoding": "parallel: an OpenVLA-OFT folder without an action head",
    "horizon": "steps of an OpenVLA-OFT chunk",
    "diffusion_steps": "denoising steps of a diffusion head, of 50",
}
"""What may follow the path, and what it means."""

_PART_OF_VERSION = frozenset(OPTIONS) - {"unnorm_key", "device", "state", "rate_hz"}
DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
SIDECAR = "robot.json"
# BridgeData's control rate, at which the base model was shown; a sidecar or an option states another.
_RATE_HZ = 5.0
# OpenVLA-OFT adds it to every range, and scales by minimum and maximum on ALOHA.
_OFT_MARGIN = 1e-8
_ALOHA_AXES = 14


def load_published(name: ModelName) -> OpenVlaPolicy:
    """`openvla:PATH?unnorm_key=...&device=cuda&dtype=bfloat16`; see `OPTIONS`."""
    name.refuse_unknown(*OPTIONS)
    path, options = Path(name.place), name.options
    config = read_config(path)
    key = choose_dataset(config.statistics, options.get("unnorm_key", ""), str(path))
    parallel = is_parallel(path, options)
    statistics = statistics_for(config, path, key, "action", parallel)
    model = load_model(config, path, options.get("device", "cpu"), dtype_of(options.get("dtype", config.dtype)))
    bins = ActionBins(config.vocab_size, config.action_bins)
    top_k = integer(options, "top_k", 0)
    head: Head = TokenHead(model, bins, statistics.size, top_k)
    proprio = None
    if parallel:
        layout = _layout(path, model, statistics.size, options)
        proprio = None if layout.proprio is None else statistics_for(config, path, key, "proprio", parallel)
        head = load_head(path, layout, bins, integer(options, "diffusion_steps", 50), top_k)
    inputs = _inputs(config, path, options, head, proprio)
    spec = PolicySpec(
        observation=observation_spec(inputs.views, inputs.state, proprio),
        action=action_spec(path, statistics, options),
        horizon=head.horizon,
        stochastic=head.stochastic,
        temperature=head.temperature,
        trainable=False,
    )
    return OpenVlaPolicy(spec, _version(path, key, options), model, head, inputs, statistics)


def load_model(config: PublishedConfig, path: Path, device: str, dtype: torch.dtype) -> OpenVlaModel:
    """The modules with the folder's weights, ready to run."""
    target = torch.device(device)
    model, unused = empty_model(config)
    load_weights(model, path, target, dtype, unused)
    restore_rotary(model.language_model, target)
    return model.eval().requires_grad_(False)


def empty_model(config: PublishedConfig) -> tuple[OpenVlaModel, set[str]]:
    """The modules without memory, and the names in a folder's files that they do without."""
    with torch.device("meta"):
        model = OpenVlaModel(config)
    complete = set(model.state_dict())
    for tower in model.vision_backbone.towers:
        tower.drop_unused()
    return model, complete - set(model.state_dict())


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


def is_parallel(path: Path, options: Mapping[str, str]) -> bool:
    """Whether all tokens come from one pass (OpenVLA-OFT). Raises `ConfigError` where a head can do nothing else."""
    has_head = is_oft(path)
    decoding = options.get("decoding", "parallel" if has_head else "sequential")
    if decoding not in ("parallel", "sequential") or (has_head and decoding == "sequential"):
        raise ConfigError(
            f"decoding={decoding!r}: expected parallel, or sequential for a folder without an action head: {path}"
        )
    return decoding == "parallel"


def statistics_for(config: PublishedConfig, path: Path, key: str, part: str, parallel: bool) -> Statistics:
    """Of the data set `key`, scaled as the folder's kind scales. part: "action" or "proprio"."""
    percentiles = read_statistics(config.statistics, key, part, str(path), margin=_OFT_MARGIN if parallel else 0.0)
    if parallel and percentiles.size == _ALOHA_AXES:
        return read_statistics(config.statistics, key, part, str(path), "min_max", _OFT_MARGIN)
    return percentiles


def _layout(path: Path, model: OpenVlaModel, axes: int, options: Mapping[str, str]) -> Layout:
    horizon = integer(options, "horizon", 0) or default_horizon(axes, path)
    return Layout(model, horizon, axes, end_token(path), load_proprio(path, model))


def _inputs(
    config: PublishedConfig, path: Path, options: Mapping[str, str], head: Head, proprio: Statistics | None
) -> Inputs:
    views = view_names(options, proprio is not None)
    room = config.max_positions - len(views) * config.towers[0].num_patches - head.num_positions
    prompt, default = options.get("prompt", "openvla"), options.get("instruction", "")
    return Inputs(
        views=views,
        state="" if proprio is None else options.get("state", "state"),
        images=ImageProcessor.load(path, config.towers),
        prompts=PromptTokenizer.load(path, prompt, default, room),
        proprio=proprio,
        evaluation_crop=_truth(options, "evaluation_crop"),
    )


def view_names(options: Mapping[str, str], has_proprio: bool) -> tuple[str, ...]:
    """Image keys; models with proprioception were made with a wrist camera as well."""
    return names(options, "views") or (("image", "wrist_image") if has_proprio else ("image",))


def _truth(options: Mapping[str, str], key: str) -> bool:
    text = options.get(key, "false")
    if text not in ("true", "false"):
        raise ConfigError(f"option {key}={text!r}: expected true or false")
    return text == "true"


def observation_spec(views: Sequence[str], state: str, proprio: Statistics | None) -> ObservationSpec:
    """Images of any size, and the proprioception where the model has it."""
    arrays = [ArraySpec(view, "uint8", (-1, -1, 3)) for view in views]
    if proprio is not None:
        arrays.append(ArraySpec(state, "float32", (proprio.size,)))
    return ObservationSpec(tuple(arrays))


def _version(path: Path, key: str, options: Mapping[str, str]) -> str:
    """The weights' name; what else changes the candidates is part of it, since caches of candidates are keyed by it."""
    said = "".join(f"-{name}={value}" for name, value in sorted(options.items()) if name in _PART_OF_VERSION)
    return f"{fingerprint(path, checkpoint_files(path))}-{key}{said}"
