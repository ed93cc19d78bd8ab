"""The family of Q critics, for the registry: kind "q", trained here."""

from __future__ import annotations

from pathlib import Path

import torch

from critics.config import CriticConfig
from critics.objective import objective, sampler
from critics.q_critic import KIND, QCritic
from steer.errors import ConfigError
from steer.model_name import ModelName
from steer.registry import Family, Trainable


def load(name: ModelName) -> QCritic:
    """Load `q:PATH` or `q:PATH?device=cuda`."""
    name.refuse_unknown("device")
    device = name.options.get("device", "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device {device!r}: no CUDA device is here: leave the option out")
    return QCritic.load(Path(name.place), device)


FAMILY = Family(
    KIND,
    "Q ensemble trained from an episode store (Cal-QL, CQL, TD, MC)",
    load,
    Trainable(CriticConfig, objective, sampler),
)
