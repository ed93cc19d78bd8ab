"""`describe`: what a published V-GPS checkpoint says of itself. Reads the critic out of the file, a sixteenth of an agent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from critics.vgps.bounds import PUBLISHED, read_action, read_bounds
from critics.vgps.config import NetworkConfig, Stated
from critics.vgps.critic import GAMMA, PUBLISHED_SCORES, build
from critics.vgps.flax_checkpoint import locate, read_arrays
from steer.description import Description, Sidecar
from steer.model_name import ModelName
from steer.observation import ObservationSpec
from steer.options import number
from steer.robot import RobotSpec
from steer.spec import ArraySpec


def describe(name: ModelName, stated: Stated) -> Description:
    """Check the parameters against each other, and say what network they make. stated: what they do not tell."""
    options = name.options
    file = locate(Path(name.place))
    network = build(read_arrays(file, PUBLISHED_SCORES), stated, str(file))
    parameters = sum(value.numel() for value in network.state_dict().values())
    facts = {"file": str(file), "parameters": parameters, **_network(network.config, options)}
    observation = ObservationSpec((ArraySpec(options.get("key", "image"), "uint8", (-1, -1, 3)),))
    choices: dict[str, list[str]] = {}
    if network.config.encoder.text_size and "embeddings" not in options:
        choices["embeddings"] = ["a table of MUSE vectors (FILE.json or .npz)", "none with tensorflow-hub installed"]
    if "bounds" not in options:
        return Description(facts, observation, choices={"bounds": [*sorted(PUBLISHED), "FILE.json"], **choices})
    bounds = read_bounds(options["bounds"])
    action = read_action(Path(options["robot"])) if "robot" in options else bounds.action_spec()
    draft = RobotSpec(file.name, action, observation)
    return Description(facts, observation, action, choices, Sidecar(draft, "?robot=FILE"))


def _network(config: NetworkConfig, options: Mapping[str, str]) -> dict[str, Any]:
    encoder = config.encoder
    return {
        "scores": "the first action, minimum over the target network's members",
        "members": config.members,
        "gamma": number(options, "gamma", GAMMA),
        "action axes": config.action_size,
        "hidden": list(config.hidden),
        "encoder": f"{encoder.block} blocks {list(encoder.stages)} from {encoder.filters} channels, {encoder.pooling} pooling",
        "instruction": f"{encoder.text_size} numbers ({encoder.conditioning})" if encoder.text_size else "none",
        "image size": list(config.image_size) if config.image_size else "any",
    }
