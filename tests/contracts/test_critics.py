"""The critic contract over every variant of our own critics, with small random weights, saved and read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from critics.q_critic import QCritic
from steer.critic import Critic
from tests.contracts.critic_contract import CriticContract, chunks, observe
from tests.critics import toys

VARIANTS = {
    "reached_poses": toys.tiny(),
    "raw": toys.tiny(features="raw"),
    "hl_gauss": toys.tiny(head="hl_gauss"),
    "first_action": toys.tiny(scores="first_action"),
    "one_member": toys.tiny(members=1, hidden=(16,)),
    "ten_members_min": toys.tiny(members=10, reduction="min"),
    "prefix_1": toys.tiny(prefix=1),
    "mc": toys.tiny(algorithm="mc"),
}


@pytest.fixture(scope="module", params=VARIANTS)
def critic(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Critic:
    path = tmp_path_factory.mktemp("critic") / "model"
    toys.make_critic(VARIANTS[request.param]).save(path)
    return QCritic.load(path)


class TestCritics(CriticContract):
    pass


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_saved_critic_scores_as_before(variant: str, tmp_path: Path) -> None:
    critic = toys.make_critic(VARIANTS[variant])
    version = critic.save(tmp_path / "model")
    loaded = QCritic.load(tmp_path / "model")
    assert loaded.version == version
    assert loaded.spec == critic.spec
    batch, actions = observe(critic, 3), chunks(critic, 3, 4)
    np.testing.assert_array_equal(
        loaded.score(loaded.encode(batch), actions), critic.score(critic.encode(batch), actions)
    )
