"""Statistics of the data sets in a checkpoint, and the way back from the model's numbers to the robot's. numpy only.

normal:  a * std + mean            bounds:  (a + 1) / 2 * (p99 - p01) + p01

Axes whose `mask` is False (the gripper) stay as predicted. Statistics may have fewer axes than the model: it then leaves out its
last ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float

from steer.errors import CheckpointError, ConfigError

Rule = Literal["normal", "bounds"]
RULES: tuple[Rule, ...] = get_args(Rule)


@dataclass(frozen=True)
class Statistics:
    """Of one data set's actions, one entry per axis. low, high: the 1st and 99th percentile, None where they are not stored."""

    mean: Float[np.ndarray, " a"]
    std: Float[np.ndarray, " a"]
    low: Float[np.ndarray, " a"] | None
    high: Float[np.ndarray, " a"] | None
    mask: Bool[np.ndarray, " a"]

    @property
    def size(self) -> int:
        return len(self.mean)


def read_statistics(content: Any, action_dim: int, source: str) -> dict[str, Statistics]:
    """Data set -> statistics; a file of one data set (a fine-tuned model's) has the name ""."""
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{source}: expected statistics per data set, got {type(content).__name__}")
    datasets = {"": content} if "action" in content else content
    return {name: _read(entry, action_dim, f"{source}: {name or 'action'}") for name, entry in datasets.items()}


def _read(entry: Any, action_dim: int, where: str) -> Statistics:
    action = entry.get("action") if isinstance(entry, dict) else None
    if not isinstance(action, dict):
        raise CheckpointError(f"{where}: has no 'action' statistics")
    mean, std = (_vector(action, name, where) for name in ("mean", "std"))
    if mean is None or std is None:
        raise CheckpointError(f"{where}: lacks mean or std; it has {sorted(action)}")
    low, high = (_vector(action, name, where) for name in ("p01", "p99"))
    mask = action.get("mask", [True] * len(mean))
    if not isinstance(mask, list) or not all(isinstance(flag, bool) for flag in mask):
        raise CheckpointError(f"{where}: mask is {mask!r}, expected true or false per axis")
    for name, value in (("std", std), ("p01", low), ("p99", high), ("mask", mask)):
        if value is not None and len(value) != len(mean):
            raise CheckpointError(
                f"{where}: {name} has {len(value)} entries, mean has {len(mean)}: expected one per axis"
            )
    if not 1 <= len(mean) <= action_dim:
        raise CheckpointError(f"{where}: statistics of {len(mean)} axes, the model has {action_dim}")
    return Statistics(mean, std, low, high, np.array(mask, np.bool_))


def _vector(action: Mapping[str, Any], name: str, where: str) -> Float[np.ndarray, " a"] | None:
    if name not in action:
        return None
    try:
        value = np.array(action[name], np.float32)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{where}: {name} is not a list of numbers ({error})") from error
    if value.ndim != 1 or not np.isfinite(value).all():
        raise CheckpointError(f"{where}: {name} has shape {value.shape}, expected one finite number per axis")
    return value


def choose(statistics: Mapping[str, Statistics], dataset: str | None, rule: str, source: str) -> Statistics:
    """The statistics of a data set; raises `ConfigError` that lists what there is."""
    if rule not in RULES:
        raise ConfigError(f"option norm={rule!r}: expected one of {list(RULES)}")
    if dataset is None and len(statistics) == 1:
        dataset = next(iter(statistics))
    if dataset is None or dataset not in statistics:
        given = "no dataset was given" if dataset is None else f"no statistics of {dataset!r}"
        raise ConfigError(f"{source}: {given}: add ?dataset= with one of {sorted(statistics)}")
    chosen = statistics[dataset]
    if rule == "bounds" and (chosen.low is None or chosen.high is None):
        raise ConfigError(f"{source}: statistics of {dataset!r} have no p01 and p99: use ?norm=normal")
    return chosen


def unnormalise(actions: Float[np.ndarray, "*n a"], statistics: Statistics, rule: Rule) -> Float[np.ndarray, "*n a"]:
    """The model's numbers in the robot's units."""
    actions = actions[..., : statistics.size]
    if rule == "bounds" and statistics.low is not None and statistics.high is not None:
        scaled = (actions + 1) * (statistics.high - statistics.low) / 2 + statistics.low
    else:
        scaled = actions * statistics.std + statistics.mean
    result: Float[np.ndarray, "*n a"] = np.where(statistics.mask, scaled, actions).astype(np.float32)
    return result
