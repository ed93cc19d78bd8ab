"""The policy contract over LeRobot's checkpoints, from our environment through a worker in LeRobot's."""

from __future__ import annotations

import pytest

from steer.policy import Policy
from tests.contracts.policy_contract import PolicyContract
from tests.lerobot.checkpoints import GOLDEN
from tests.lerobot.conftest import Build, Start


@pytest.fixture(scope="module", params=sorted(path.name for path in GOLDEN.iterdir()))
def policy(request: pytest.FixtureRequest, start: Start, checkpoint: Build) -> Policy:
    return start(checkpoint(GOLDEN / request.param))


class TestLeRobotPolicies(PolicyContract):
    pass
