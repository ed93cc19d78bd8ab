"""An objective of one number and a sampler of noise: the loop's behaviour without a network worth the name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from steer.checkpoints import write_checkpoint
from steer.transforms import Pipeline


class Noise:
    """Batches of four normal numbers."""

    def __init__(self, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)

    def sample(self) -> Any:
        return self._rng.normal(size=4).astype(np.float32)

    def state(self) -> Any:
        return dict(self._rng.bit_generator.state)

    def restore(self, state: Any) -> None:
        self._rng.bit_generator.state = state


class Mean:
    """Fits a mean with momentum; adds torch's global noise, so that its state matters too. Remembers its losses."""

    def __init__(
        self, nan_at: int | None = None, on_step: Callable[[int], None] | None = None, padding: int = 0
    ) -> None:
        self.mean = torch.nn.Parameter(torch.tensor(3.0))
        self.optimizer = torch.optim.AdamW([self.mean], 0.05)
        self.padding = torch.zeros(padding)
        self.losses: list[float] = []
        self._count, self._nan_at, self._on_step = 0, nan_at, on_step

    def step(self, batch: Any) -> Mapping[str, torch.Tensor]:
        loss = ((self.mean - torch.from_numpy(batch) - 0.1 * torch.randn(4)) ** 2).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self._count += 1
        self.losses.append(loss.item())
        if self._on_step is not None:
            self._on_step(self._count)
        return {"loss": loss * (math.nan if self._count == self._nan_at else 1), "mean": self.mean}

    def state(self) -> Mapping[str, Any]:
        return {
            "mean": self.mean,
            "optimizer": self.optimizer.state_dict(),
            "count": self._count,
            "padding": self.padding,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.mean.data = state["mean"]
        self.optimizer.load_state_dict(state["optimizer"])
        self._count = state["count"]

    def save(self, path: Path) -> str:
        weights = {"mean": self.mean.detach().numpy()}
        return write_checkpoint(
            path, kind="toy", config={}, spec={}, transforms=Pipeline(), weights=weights, card="# Toy\n"
        )
