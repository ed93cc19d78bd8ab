"""`Statistics`: the scale of actions (and proprioception) in one data set, and the choice of that data set.

    action = (a + 1) / 2 * (high - low) + low   where the mask is true, a itself elsewhere (mostly the gripper)

low and high are the 1st and 99th percentile; a mask that is missing is true everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from steer.errors import CheckpointError, ConfigError


@dataclass(frozen=True)
class Statistics:
    """low, high: float64[N]; mask: which entries are scaled; margin: added to high - low (1e-8 in OpenVLA-OFT)."""

    low: Float[np.ndarray, " n"]
    high: Float[np.ndarray, " n"]
    mask: Bool[np.ndarray, " n"]
    margin: float = 0.0

    @property
    def size(self) -> int:
        return len(self.low)

    def to_robot(self, values: Float[np.ndarray, "*lead n"]) -> Float[np.ndarray, "*lead n"]:
        """[-1, 1] to the robot's units, float64."""
        scaled = 0.5 * (values + 1) * (self.high - self.low + self.margin) + self.low
        return np.where(self.mask, scaled, values)

    def to_model(self, values: Float[np.ndarray, "*lead n"]) -> Float[np.ndarray, "*lead n"]:
        """The robot's units to [-1, 1], clipped there; float64."""
        scaled = 2 * (values - self.low) / (self.high - self.low + self.margin) - 1
        return np.clip(np.where(self.mask, scaled, values), -1.0, 1.0)

    @property
    def bounds(self) -> Float[np.ndarray, "2 n"]:
        """What [-1, 1] becomes."""
        return np.stack([self.to_robot(np.full(self.size, side)) for side in (-1.0, 1.0)])


def choose_dataset(statistics: Mapping[str, Any], key: str, owner: str) -> str:
    """The data set called `key`; with one data set the key may be left out. Raises `ConfigError` that lists them."""
    if not key and len(statistics) == 1:
        return next(iter(statistics))
    if key not in statistics:
        said = (
            f"unnorm_key {key!r} is none of its data sets" if key else "several data sets, and no unnorm_key was given"
        )
        raise ConfigError(f"{owner}: {said}: write ?unnorm_key= with one of {sorted(statistics)}")
    return key


def read_statistics(
    statistics: Mapping[str, Any], key: str, part: str, owner: str, bounds: str = "q99", margin: float = 0.0
) -> Statistics:
    """part: "action" or "proprio"; bounds: "q99" (percentiles) or "min_max". Raises `CheckpointError`."""
    low_name, high_name = ("q01", "q99") if bounds == "q99" else ("min", "max")
    entry = statistics[key].get(part)
    if not isinstance(entry, dict) or low_name not in entry or high_name not in entry:
        raise CheckpointError(f"{owner}: statistics of {key!r} have no {part}.{low_name} and {part}.{high_name}")
    low, high = np.asarray(entry[low_name], np.float64), np.asarray(entry[high_name], np.float64)
    mask = np.asarray(entry.get("mask", np.ones(low.shape)), np.bool_)
    if low.ndim != 1 or low.shape != high.shape or low.shape != mask.shape:
        raise CheckpointError(
            f"{owner}: statistics of {key!r}: {part} has shapes {low.shape}, {high.shape}, {mask.shape}, expected one vector length"
        )
    return Statistics(low, high, mask, margin)
