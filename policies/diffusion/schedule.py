"""Noise levels: diffusers' squared-cosine schedule for training, and its DDIM sampler as a table of numbers.

`DdimLevel.step` computes what `diffusers.DDIMScheduler.step` computes (eta 0, clipped x0; a test holds the two equal)
without its per-step Python, which would cost more than the network at a batch of one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steer.errors import MissingExtraError


def alphas_cumprod(diffusion_steps: int) -> Float[Tensor, " t"]:
    """alpha-bar of Nichol and Dhariwal 2021, equation 17, with betas capped at .999."""
    try:
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler
    except ImportError as error:
        raise MissingExtraError("diffusers", "train", "training a diffusion policy") from error
    levels: Tensor = DDIMScheduler(
        num_train_timesteps=diffusion_steps, beta_schedule="squaredcos_cap_v2"
    ).alphas_cumprod
    return levels.float()


@dataclass(frozen=True)
class DdimLevel:
    """One denoising step of DDIM (Song et al. 2021, equation 12): from noise level `time` to the next lower one.

    signal, noise: sqrt(alpha-bar) and sqrt(1 - alpha-bar) here; next_signal, next_noise: at the next level.
    """

    time: int
    signal: float
    noise: float
    next_signal: float
    next_noise: float

    def at(self, clean: Float[Tensor, "*n c"], noise: Float[Tensor, "*n c"]) -> Float[Tensor, "*n c"]:
        """A clean chunk at this noise level (Ho et al. 2020, equation 4)."""
        return self.signal * clean + self.noise * noise

    def step(self, x: Float[Tensor, "*n c"], eps: Float[Tensor, "*n c"]) -> Float[Tensor, "*n c"]:
        """The chunk at the next level; its estimate of the clean chunk is clipped to [-1, 1]."""
        x0 = torch.add(x / self.signal, eps, alpha=-self.noise / self.signal).clamp_(-1, 1)
        return x0.mul_(self.next_signal).add_(eps, alpha=self.next_noise)


def ddim_levels(levels: Float[Tensor, " t"], inference_steps: int) -> tuple[DdimLevel, ...]:
    """The `inference_steps` levels from the noisiest to the cleanest, evenly spaced and with both ends.

    Sampling begins with pure noise, so it has to begin at the level where training saw pure noise; diffusers' default
    spacing begins six levels lower, which cost a fifth of the successes of the policy alone.
    """
    timesteps = torch.linspace(len(levels) - 1, 0, inference_steps).round().int().tolist()
    alphas = levels.double()

    def root(timestep: int) -> tuple[float, float]:
        alpha = float(alphas[timestep]) if timestep >= 0 else 1.0
        return alpha**0.5, (1 - alpha) ** 0.5

    following = [*timesteps[1:], -1]
    return tuple(DdimLevel(t, *root(t), *root(lower)) for t, lower in zip(timesteps, following, strict=True))
