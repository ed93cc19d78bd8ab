"""The straight path from noise (time 0) to a chunk (time 1): how times are drawn, and Euler's steps along it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

# pi0 draws no time above this: a path within one Euler step of its end need not be learned (Black et al. 2024, appendix B).
BETA_LIMIT = 0.999


def point(
    chunk: Float[Tensor, "*#n c"], noise: Float[Tensor, "*n c"], time: Float[Tensor, "*#n 1"] | float
) -> Float[Tensor, "*n c"]:
    """x_t = t x_1 + (1 - t) x_0 (Liu et al. 2023, equation 1)."""
    return time * chunk + (1 - time) * noise


def beta_times(uniform: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Times with (s - t) / s ~ Beta(1.5, 1), s = .999, by the inverse of its distribution function u = z^1.5."""
    return BETA_LIMIT * (1 - uniform ** (2 / 3))


@dataclass(frozen=True)
class EulerLevel:
    """One Euler step from `time` on, `size` long."""

    time: float
    size: float

    def at(self, clean: Float[Tensor, "*#n c"], noise: Float[Tensor, "*n c"]) -> Float[Tensor, "*n c"]:
        """A clean chunk at this time of its path from `noise`."""
        return point(clean, noise, self.time)

    def step(self, x: Float[Tensor, "*n c"], velocity: Float[Tensor, "*n c"]) -> Float[Tensor, "*n c"]:
        """The chunk at the next time."""
        return torch.add(x, velocity, alpha=self.size)


def euler_levels(steps: int) -> tuple[EulerLevel, ...]:
    """`steps` equal steps from time 0 to 1."""
    return tuple(EulerLevel(index / steps, 1 / steps) for index in range(steps))
