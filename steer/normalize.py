"""Normalisation: the last transforms of a pipeline. The statistics are their fields, so they travel in the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from steer.action import ActionSpec
from steer.errors import SpecError
from steer.spec import Array
from steer.transforms import OnActions, OnObservations, register


@register
@dataclass(frozen=True)
class NormalizeVector(OnObservations):
    """(x - mean) / std per entry of one vector."""

    name: ClassVar[str] = "normalize_vector"
    key: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @cached_property
    def _moments(self) -> tuple[Array, Array]:
        return np.array(self.mean, np.float32), np.array(self.std, np.float32)

    def observe(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        mean, std = self._moments
        return {**arrays, self.key: (arrays[self.key] - mean) / std}


def fit_vector(key: str, values: Float[np.ndarray, "n d"], floor: float = 1e-3) -> NormalizeVector:
    """Statistics of the data; `floor` keeps entries that never move from being blown up."""
    if not len(values):
        raise SpecError(f"{key}: no values to take statistics from")
    mean = values.mean(axis=0, dtype=np.float64)
    std = np.maximum(values.std(axis=0, dtype=np.float64), floor)
    return NormalizeVector(key, tuple(float(m) for m in mean), tuple(float(s) for s in std))


@register
@dataclass(frozen=True)
class NormalizeActions(OnActions):
    """[low, high] of the robot's units <-> [-1, 1]."""

    name: ClassVar[str] = "normalize_actions"
    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def of(cls, spec: ActionSpec) -> NormalizeActions:
        """By the bounds of the action spec: one stored set of bounds for training and serving alike."""
        return cls(tuple(axis.low for axis in spec.axes), tuple(axis.high for axis in spec.axes))

    @cached_property
    def _affine(self) -> tuple[Array, Array]:
        low, high = np.array(self.low, np.float64), np.array(self.high, np.float64)
        return ((high + low) / 2).astype(np.float32), ((high - low) / 2).astype(np.float32)

    def to_model(self, actions: Float[np.ndarray, "*lead a"]) -> Float[np.ndarray, "*lead a"]:
        centre, half = self._affine
        return (actions - centre) / half

    def to_robot(self, actions: Float[np.ndarray, "*lead a"]) -> Float[np.ndarray, "*lead a"]:
        centre, half = self._affine
        return actions * half + centre
