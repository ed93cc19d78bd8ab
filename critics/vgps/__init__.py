"""V-GPS critics: `FAMILY` is their entry in the registry. Torch is imported only when one is loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from critics.vgps.bounds import read_action, read_bounds
from critics.vgps.config import Stated
from steer.errors import ConfigError, MissingExtraError
from steer.model_name import ModelName
from steer.options import integer, number
from steer.registry import Family

if TYPE_CHECKING:
    from critics.vgps.critic import VGPSCritic
    from critics.vgps.language import InstructionEncoder
    from steer.description import Description

OPTIONS = ("bounds", "embeddings", "robot", "key", "device", "gamma")
STATED = ("image_size", "pooling", "activation", "groups", "softmax_temperature")


def load(name: ModelName) -> VGPSCritic:
    """`vgps:PATH?bounds=bridge&embeddings=TABLE.json`, or the path of one of our own folders.

    PATH: a published checkpoint, `checkpoint_STEP` as folder or as file, or a folder of these (the latest is taken).
    bounds: bridge, fractal or a JSON file, see `critics.vgps.bounds`. embeddings: a table, see `critics.vgps.language`.
    robot: a sidecar that states what the actions mean. key: the observation's image.
    image_size: 256 (default), HEIGHTxWIDTH, or "any" for images as they come.
    gamma, pooling, activation, groups, softmax_temperature: where a checkpoint differs from the released one.
    One of our own folders holds all that; it takes embeddings (instead of its own table) and device.
    """
    _require()
    from critics.vgps.critic import GAMMA, VGPSCritic

    path, options = Path(name.place), name.options
    device = options.get("device", "cpu")
    if (path / "config.json").exists():
        name.refuse_unknown("device", "embeddings")
        return VGPSCritic.load(path, _instructions(options)).to(device)
    name.refuse_unknown(*OPTIONS, *STATED)
    if "bounds" not in options:
        raise ConfigError(f"{name}: a V-GPS critic maps actions by fixed bounds: add ?bounds=bridge, fractal or a file")
    return VGPSCritic.from_flax(
        path,
        read_bounds(options["bounds"]),
        _instructions(options),
        stated=_stated(options),
        key=options.get("key", "image"),
        action=read_action(Path(options["robot"])) if "robot" in options else None,
        gamma=number(options, "gamma", GAMMA),
    ).to(device)


def describe(name: ModelName) -> Description:
    """What a published checkpoint says of itself, see `critics.vgps.describe`."""
    _require()
    from critics.vgps.describe import describe as describe_published

    name.refuse_unknown(*OPTIONS, *STATED)
    return describe_published(name, _stated(name.options))


def convert(name: ModelName, out: Path) -> str:
    """Keep of a published agent what scoring needs, with the embedding table, as one of our own folders."""
    critic = load(name)
    return critic.save(
        out, f"# V-GPS critic\n\nFrom {Path(name.place).name}: the target network of a published agent.\n"
    )


def _require() -> None:
    for package in ("torch", "msgpack"):
        if find_spec(package) is None:
            raise MissingExtraError(package, "train", "a V-GPS critic")


def _instructions(options: Mapping[str, str]) -> InstructionEncoder | None:
    from critics.vgps.language import make_instruction_encoder

    return make_instruction_encoder(options["embeddings"]) if "embeddings" in options else None


def _stated(options: Mapping[str, str]) -> Stated:
    """What the parameters do not tell."""
    given: dict[str, Any] = {key: options[key] for key in ("pooling", "activation") if key in options}
    if "image_size" in options:
        given["image_size"] = _size(options["image_size"])
    return Stated(
        groups=integer(options, "groups", Stated.groups),
        softmax_temperature=number(options, "softmax_temperature", Stated.softmax_temperature),
        **given,
    )


def _size(text: str) -> tuple[int, int] | None:
    if text == "any":
        return None
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if match is None:
        raise ConfigError(f"image_size={text!r}: expected a number, HEIGHTxWIDTH, or any")
    return int(match[1]), int(match[2] or match[1])


FAMILY = Family(
    kind="vgps",
    summary="published V-GPS value functions: language-conditioned Cal-QL over images (Nakamoto et al. 2024)",
    load=load,
    describe=describe,
    convert=convert,
)
