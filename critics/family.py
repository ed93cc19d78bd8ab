"""The family of Q critics, for the registry: kind "q", trained here."""

from __future__ import annotations

from pathlib import Path

from critics.config import CriticConfig
from critics.objective import objective
from critics.q_critic import KIND, QCritic
from steer.errors import ConfigError
from steer.model_name import ModelName
from steer.registry import Family, Trainable


def load(name: ModelName) -> QCritic:
    """Load `q:PATH`."""
    if name.options:
        raise ConfigError(f"q critics take no options, got {dict(name.options)}: write q:PATH")
    return QCritic.load(Path(name.place))


FAMILY = Family(
    KIND, "Q ensemble trained from an episode store (Cal-QL, CQL, TD, MC)", load, Trainable(CriticConfig, objective)
)
