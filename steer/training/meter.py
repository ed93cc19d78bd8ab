"""Means of metrics between two logs, summed where they were computed: reading a number waits for the device."""

from __future__ import annotations

import math
from collections import Counter

from torch import Tensor

from steer.errors import SteerError
from steer.training.objective import Metrics


class DivergedError(SteerError):
    """A loss is not finite; nothing of the diverged state was saved."""


class Meter:
    """Adds up metrics until they are read."""

    def __init__(self) -> None:
        self._sums: dict[str, float | Tensor] = {}
        self._counts: Counter[str] = Counter()

    def add(self, metrics: Metrics) -> None:
        """One step's metrics; they hold "loss", others may come now and then."""
        for name, value in metrics.items():
            value = value.detach() if isinstance(value, Tensor) else value
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._counts.update(metrics.keys())

    def check(self, step: int) -> None:
        """Raise `DivergedError` when a loss since the last reading was not finite (a sum keeps NaN and infinity)."""
        loss = float(self._sums.get("loss", 0.0))
        if not math.isfinite(loss):
            raise DivergedError(
                f"the loss is {loss} within the {self._counts['loss']} steps up to step {step}: lower the learning rate or look "
                "for extreme values in the data; the last saved state is from before and can be resumed"
            )

    def read(self) -> dict[str, float]:
        """Means since the last reading, each over the steps that gave it; starts anew."""
        means = {name: float(total) / self._counts[name] for name, total in self._sums.items()}
        self._sums, self._counts = {}, Counter()
        return means
