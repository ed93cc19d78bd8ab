"""The policy contract over LeRobot's checkpoints, from our environment through a worker in LeRobot's."""

from __future__ import annotations

from pathlib import Path

import pytest

from steer.policy import Policy
from tests.contracts.policy_contract import PolicyContract
from tests.golden.compare_lerobot import stored_or_built
from tests.lerobot.checkpoints import GOLDEN
from tests.lerobot.conftest import Start


@pytest.fixture(scope="module", params=sorted(path.name for path in GOLDEN.iterdir()))
def policy(request: pytest.FixtureRequest, start: Start, tmp_path_factory: pytest.TempPathFactory) -> Policy:
    return start(stored_or_built(GOLDEN / request.param, Path(tmp_path_factory.mktemp("built"))))


class TestLeRobotPolicies(PolicyContract):
    pass
