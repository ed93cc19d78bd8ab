"""`describe`: what an Octo checkpoint says of itself. Reads and checks the whole file (0.1 to 0.4 GB); imports no jax."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from policies.octo.checkpoint import OctoCheckpoint
from policies.octo.options import action_spec, camera_keys, observation_spec, read_named, rule_of
from policies.octo.statistics import choose
from steer.description import Description, Sidecar
from steer.model_name import ModelName
from steer.robot import RobotSpec


def describe(name: ModelName) -> Description:
    """Read and check a checkpoint, and say what is in it."""
    options = name.options
    checkpoint = read_named(name)
    keys = camera_keys(checkpoint, options)
    observation = observation_spec(checkpoint, keys, options)
    facts = _facts(checkpoint)
    datasets = sorted(checkpoint.statistics)
    if "dataset" not in options and len(datasets) > 1:
        return Description(facts, observation, choices={"dataset": datasets})
    rule = rule_of(options.get("norm", "normal"))
    statistics = choose(checkpoint.statistics, options.get("dataset"), rule, name.place)
    action = action_spec(checkpoint, statistics, rule, options)
    draft = RobotSpec(Path(name.place).name, action, observation)
    facts["scaled axes"] = statistics.mask.tolist()
    return Description(facts, observation, action, sidecar=Sidecar(draft, "?robot=FILE"))


def _facts(checkpoint: OctoCheckpoint) -> dict[str, Any]:
    config = checkpoint.config
    return {
        "version": checkpoint.version,
        "parameters": sum(value.size for value in checkpoint.weights.values()),
        "horizon": config.head.horizon,
        "image sizes": {name: list(size) for name, size in checkpoint.image_sizes.items()},
        "window": f"{config.window}, at most {config.max_window}",
        "transformer": f"{config.layers} layers x {config.width}",
        "head": f"diffusion, {config.head.diffusion_steps} steps",
        "instructions": f"{config.encoder}, {config.language_tokens} tokens: ?tokenizer=FILE or ?instructions=TABLE",
        "goal images": any(camera.goal for camera in config.cameras),
        "stochastic": True,
    }
