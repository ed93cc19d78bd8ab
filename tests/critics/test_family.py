"""The registry finds the family, and refuses what it cannot do."""

from __future__ import annotations

from pathlib import Path

import pytest

from critics.config import CriticConfig
from critics.q_critic import QCritic
from steer import registry
from steer.checkpoints import write_checkpoint
from steer.errors import CheckpointError, ConfigError
from tests.critics.toys import make_critic, tiny


def test_a_folder_alone_names_the_critic(tmp_path: Path) -> None:
    version = make_critic(tiny()).save(tmp_path / "critic")
    loaded = registry.critic(str(tmp_path / "critic"))
    assert isinstance(loaded, QCritic)
    assert loaded.version == version
    assert loaded.config == tiny()


def test_the_config_is_the_recipe() -> None:
    trainable = registry.family(registry.CRITICS, "q").trainable
    assert trainable is not None
    assert trainable.config is CriticConfig


def test_unknown_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="beam"):
        registry.critic(f"q:{tmp_path}?beam=3")


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    small, large = make_critic(tiny()), make_critic(tiny(members=3))
    weights = {name: value.numpy() for name, value in large.network.state_dict().items()}
    write_checkpoint(
        tmp_path / "critic",
        kind="q",
        config=small.config,
        spec=small.spec,
        transforms=small.transforms,
        weights=weights,
        card="",
    )
    with pytest.raises(CheckpointError, match=r"unexpected .*members\.2"):
        QCritic.load(tmp_path / "critic")
