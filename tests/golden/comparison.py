"""`Comparison`: one quantity of one golden checkpoint, ours against the published code's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Comparison:
    """source: file or checkpoint; difference: largest absolute one; bound: the largest allowed."""

    source: str
    quantity: str
    difference: float
    bound: float

    @property
    def passed(self) -> bool:
        # NaN is no agreement: it fails every comparison.
        return self.difference <= self.bound


def close(source: str, quantity: str, ours: ArrayLike, golden: ArrayLike, bound: float) -> Comparison:
    """Compare numbers; another shape counts as infinitely far away."""
    a, b = np.asarray(ours, np.float64), np.asarray(golden, np.float64)
    difference = float("inf") if a.shape != b.shape else float(np.max(np.abs(a - b), initial=0.0))
    return Comparison(source, quantity, difference, bound)


def equal(source: str, quantity: str, ours: object, golden: object) -> Comparison:
    """Compare what must be the same bit for bit: arrays (dtype and shape too), bytes, texts."""
    if isinstance(ours, np.ndarray) and isinstance(golden, np.ndarray):
        same = ours.dtype == golden.dtype and ours.shape == golden.shape and bool(np.array_equal(ours, golden))
    else:
        same = ours == golden
    return Comparison(source, quantity, 0.0 if same else float("inf"), 0.0)
