"""Success classifiers trained from labelled episodes: `FAMILY` is their entry in the registry, kind "reward"."""

from __future__ import annotations

from pathlib import Path

from critics.reward.classifier import KIND, RewardClassifier
from critics.reward.config import RewardConfig
from critics.reward.objective import RewardObjective
from critics.reward.sampling import SuccessSampler
from steer.model_name import ModelName
from steer.registry import Family, Trainable


def load(name: ModelName) -> RewardClassifier:
    """Load `reward:PATH` or `reward:PATH?device=cuda`."""
    name.refuse_unknown("device")
    return RewardClassifier.load(Path(name.place), name.options.get("device", "cpu"))


FAMILY = Family(
    KIND,
    "success classifier on images or state, trained from labelled episodes",
    load,
    Trainable(RewardConfig, RewardObjective, SuccessSampler),
)
