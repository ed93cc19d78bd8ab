"""The policy contract over OpenVLA: published folders of both kinds, and the small policy that is trained here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from policies.openvla import load
from steer.model_name import ModelName
from steer.policy import Policy
from tests.contracts.policy_contract import PolicyContract
from tests.policies.openvla import toys

GOLDEN = Path(__file__).parents[1] / "golden"
# The contract's tasks bring no instruction.
OPTIONS = "unnorm_key=libero_spatial_no_noops&dtype=float32&instruction=pick+up+the+cube"


def openvla(path: Path) -> Policy:
    return load(ModelName.parse(f"openvla:{GOLDEN}/openvla/tiny-sharded-f32?{OPTIONS}"))


def oft(path: Path) -> Policy:
    return load(ModelName.parse(f"openvla:{GOLDEN}/openvla_oft/tiny-oft-bf16?{OPTIONS}"))


def oft_diffusion(path: Path) -> Policy:
    toys.join_oft_heads(path)
    return load(ModelName.parse(f"openvla:{path}?{OPTIONS}&views=image&diffusion_steps=3"))


def oft_tokens(path: Path) -> Policy:
    toys.copy_without(GOLDEN / "openvla_oft/tiny-oft-bf16", path, "*.pt")
    return load(ModelName.parse(f"openvla:{path}?{OPTIONS}&decoding=parallel"))


def trained_from_state(path: Path) -> Policy:
    return toys.saved(toys.trained(toys.SMALL, toys.random_frames()), path)


def trained_from_images(path: Path) -> Policy:
    return toys.saved(toys.trained(toys.WITH_IMAGES, toys.image_frames()), path)


FACTORIES: tuple[Callable[[Path], Policy], ...] = (
    openvla,
    oft,
    oft_diffusion,
    oft_tokens,
    trained_from_state,
    trained_from_images,
)


@pytest.fixture(scope="module", params=FACTORIES, ids=lambda factory: factory.__name__)
def policy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Policy:
    made: Policy = request.param(tmp_path_factory.mktemp("policy") / "model")
    return made


class TestOpenVlaPolicies(PolicyContract):
    pass
