"""Octo (Ghosh et al. 2024, arXiv:2405.12213), versions 1.0 and 1.5: `FAMILY` is its entry in the registry.

jax is imported only when such a model is loaded.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from steer.errors import MissingExtraError
from steer.model_name import ModelName
from steer.registry import Family

if TYPE_CHECKING:
    from policies.octo.policy import OctoPolicy
    from steer.description import Description


def load(name: ModelName) -> OctoPolicy:
    """`octo:PATH?dataset=bridge_dataset&tokenizer=t5-base/tokenizer.json`.

    dataset: whose statistics turn the model's numbers into actions; needed where the checkpoint has several.
    step: which step's weights; the latest unless given.
    tokenizer: `tokenizer.json` of t5-base, or its folder. instructions: an .npz table instead, see `language`.
    norm: normal (default) or bounds, see `statistics`.
    robot: a robot's sidecar, whose action spec the policy takes; without one everything but the bounds is "unknown".
    rate_hz: control rate where there is no sidecar (5).
    window: frames of history (as in training). crop: yes takes the centre of the first camera's image (no).
    CAMERA (primary, wrist): the observation key of that camera; an empty one leaves it out.
    """
    _require("running an Octo policy", "jax", "msgpack")
    from policies.octo.load import load_policy

    return load_policy(name)


def describe(name: ModelName) -> Description:
    """What a checkpoint says of itself, see `policies.octo.describe`."""
    _require("reading an Octo checkpoint", "msgpack")
    from policies.octo.describe import describe as describe_published

    return describe_published(name)


def _require(purpose: str, *packages: str) -> None:
    for package in packages:
        if find_spec(package) is None:
            raise MissingExtraError(package, "jax", purpose)


FAMILY = Family(kind="octo", summary="Octo 1.0 and 1.5 in JAX (Ghosh et al. 2024)", load=load, describe=describe)
