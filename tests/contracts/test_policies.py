"""The policy contract over every family that can be made without a download."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from steer.policy import Policy
from tests.contracts.policy_contract import PolicyContract
from tests.policies import toys


def diffusion_from_state(path: Path) -> Policy:
    return toys.saved(toys.trained(toys.SMALL, toys.random_frames(), steps=20), path)


def diffusion_from_history(path: Path) -> Policy:
    return toys.saved(toys.trained(replace(toys.SMALL, window=3), toys.random_frames(), steps=20), path)


def diffusion_from_images(path: Path) -> Policy:
    config = replace(toys.SMALL, keys=("state", "camera.front"))
    return toys.saved(toys.trained(config, toys.image_frames(), steps=20), path)


FACTORIES: tuple[Callable[[Path], Policy], ...] = (diffusion_from_state, diffusion_from_history, diffusion_from_images)


@pytest.fixture(scope="module", params=FACTORIES, ids=lambda factory: factory.__name__)
def policy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Policy:
    made: Policy = request.param(tmp_path_factory.mktemp("policy") / "model")
    return made


class TestPolicies(PolicyContract):
    pass
