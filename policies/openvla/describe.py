"""`describe`: what a published OpenVLA or OpenVLA-OFT folder says of itself. Reads headers and JSON; no weight is loaded."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

from policies.openvla.config import PublishedConfig, read_config
from policies.openvla.oft_loading import default_horizon
from policies.openvla.oft_modules import part_file, read_part
from policies.openvla.published import (
    OPTIONS,
    SIDECAR,
    action_spec,
    empty_model,
    is_parallel,
    observation_spec,
    statistics_for,
    view_names,
)
from policies.openvla.statistics import Statistics, choose_dataset
from policies.openvla.tokens import read_tokenizer
from policies.openvla.weights import check_weights, weight_files
from steer.description import Description, Sidecar
from steer.model_name import ModelName
from steer.options import integer
from steer.robot import RobotSpec

_PARTS = ("action_head", "proprio_projector", "noisy_action_projector")


def describe(name: ModelName) -> Description:
    """Check the folder against its configuration, tensor by tensor, and say what is in it."""
    name.refuse_unknown(*OPTIONS)
    path, options = Path(name.place), name.options
    config = read_config(path)
    keys = sorted(config.statistics)
    parallel = is_parallel(path, options)
    facts = {**_model(config, path), **_decoding(path, parallel)}
    if "unnorm_key" not in options and len(keys) > 1:
        return Description(facts, choices={"unnorm_key": keys})
    key = choose_dataset(config.statistics, options.get("unnorm_key", ""), str(path))
    statistics = statistics_for(config, path, key, "action", parallel)
    proprio = _proprio(config, path, key, parallel)
    horizon = integer(options, "horizon", 0) or (default_horizon(statistics.size, path) if parallel else 1)
    views = view_names(options, proprio is not None)
    observation = observation_spec(views, options.get("state", "state"), proprio)
    action = action_spec(path, statistics, options)
    draft = RobotSpec(path.name, action, observation)
    facts |= {"unnorm_key": key, "horizon": horizon, "scaled axes": statistics.mask.tolist()}
    return Description(facts, observation, action, sidecar=Sidecar(draft, str(path / SIDECAR)))


def _model(config: PublishedConfig, path: Path) -> dict[str, Any]:
    model, unused = empty_model(config)
    found = check_weights(model, path, unused)
    heads = [read_part(file, "meta") for part in _PARTS if (file := part_file(path, part)) is not None]
    tensors = [prod(shape) for shape in found.values()] + [value.numel() for head in heads for value in head.values()]
    read_tokenizer(path)
    llama = config.llama
    return {
        "parameters": sum(tensors),
        "weight files": len(weight_files(path)),
        "dtype": config.dtype,
        "vision": [f"{tower.depth} blocks x {tower.embed_dim}, {tower.img_size} px" for tower in config.towers],
        "language": f"Llama, {llama['num_hidden_layers']} layers x {llama['hidden_size']}, "
        f"{config.vocab_size} tokens, {config.action_bins} of them actions",
    }


def _decoding(path: Path, parallel: bool) -> dict[str, Any]:
    """How it proposes, and what that makes of K candidates."""
    if not parallel:
        return {"head": "action tokens, one after the other", "stochastic": True}
    if part_file(path, "action_head") is None:
        return {"head": "action tokens, all at once", "stochastic": True}
    if part_file(path, "noisy_action_projector") is not None:
        return {"head": "diffusion (OpenVLA-OFT)", "stochastic": True}
    return {"head": "regression (OpenVLA-OFT)", "stochastic": False}


def _proprio(config: PublishedConfig, path: Path, key: str, parallel: bool) -> Statistics | None:
    if not parallel or part_file(path, "proprio_projector") is None:
        return None
    return statistics_for(config, path, key, "proprio", parallel)
