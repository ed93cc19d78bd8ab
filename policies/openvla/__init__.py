"""OpenVLA: `FAMILY` is its entry in the registry. Torch and transformers are imported only when one is loaded or trained.

A path is a published folder of OpenVLA or OpenVLA-OFT, or one of our own checkpoints: a small policy of the same kind that proposes
chunks, trained here.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from policies.config import chunk_sampler
from policies.openvla.chunk_config import TokenChunkConfig
from steer.errors import MissingExtraError
from steer.model_name import ModelName
from steer.options import integer
from steer.registry import Family, Trainable

if TYPE_CHECKING:
    from policies.openvla.chunk_objective import TokenChunkObjective
    from policies.openvla.chunk_policy import TokenChunkPolicy
    from policies.openvla.policy import OpenVlaPolicy
    from steer.checkpoints import Checkpoint
    from steer.data.frames import Frames
    from steer.description import Description


def load(name: ModelName) -> OpenVlaPolicy | TokenChunkPolicy:
    """`openvla:PATH?unnorm_key=bridge_orig&device=cuda&dtype=bfloat16`; our own folders take `device` and `top_k`."""
    _require("running an OpenVLA policy")
    if (Path(name.place) / "manifest.json").exists():
        from policies.openvla.chunk_policy import TokenChunkPolicy

        name.refuse_unknown("device", "top_k")
        return TokenChunkPolicy.load(
            Path(name.place), name.options.get("device", "cpu"), integer(name.options, "top_k", 0)
        )
    from policies.openvla.published import load_published

    return load_published(name)


def describe(name: ModelName) -> Description:
    """What a published folder says of itself, see `policies.openvla.describe`."""
    _require("reading an OpenVLA folder")
    from policies.openvla.describe import describe as describe_published

    return describe_published(name)


def objective(
    config: TokenChunkConfig, frames: Frames, seed: int = 0, start: Checkpoint | None = None
) -> TokenChunkObjective:
    """What trains a small token policy on these frames, or trains the one in `start` further."""
    _require("training a token policy")
    from policies.openvla.chunk_objective import TokenChunkObjective

    return TokenChunkObjective(config, frames, seed, start)


def _require(purpose: str) -> None:
    for module, package in (
        ("torch", "torch"),
        ("transformers", "transformers"),
        ("tokenizers", "tokenizers"),
        ("PIL", "pillow"),
    ):
        if find_spec(module) is None:
            raise MissingExtraError(package, "train" if module == "torch" else "vla", purpose)


FAMILY = Family(
    kind="openvla",
    summary="Actions as tokens of a language model (Kim et al. 2024)",
    load=load,
    trainable=Trainable(TokenChunkConfig, objective, chunk_sampler),
    describe=describe,
)
