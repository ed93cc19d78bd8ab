"""The policy contract over a small Octo checkpoint, with both cameras."""

from __future__ import annotations

import pytest

from steer import registry
from steer.policy import Policy
from tests.contracts.policy_contract import PolicyContract
from tests.policies.octo.toys import GOLDEN


@pytest.fixture(scope="module")
def policy() -> Policy:
    return registry.policy(f"octo:{GOLDEN / 'octo15_tiny'}?dataset=bridge_dataset")


class TestOcto(PolicyContract):
    pass
