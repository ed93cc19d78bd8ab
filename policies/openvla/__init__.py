"""OpenVLA and OpenVLA-OFT: `FAMILY` is their entry in the registry. Torch and transformers are imported only when one is loaded."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from steer.errors import MissingExtraError
from steer.model_name import ModelName
from steer.registry import Family

if TYPE_CHECKING:
    from policies.openvla.policy import OpenVlaPolicy


def load(name: ModelName) -> OpenVlaPolicy:
    """`openvla:PATH?unnorm_key=bridge_orig&device=cuda&dtype=bfloat16`."""
    _require("running an OpenVLA policy")
    from policies.openvla.published import load_published

    return load_published(name)


def _require(purpose: str) -> None:
    for package in ("torch", "transformers", "tokenizers", "PIL"):
        if find_spec(package) is None:
            raise MissingExtraError("pillow" if package == "PIL" else package, "vla", purpose)


FAMILY = Family(kind="openvla", summary="Actions as tokens of a language model (Kim et al. 2024)", load=load)
