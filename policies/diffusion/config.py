"""Every hyper-parameter of the diffusion policy, one line each; also the flags of `steer train policy`. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from policies.config import TrainingConfig
from steer.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig(TrainingConfig):
    """Diffusion policy (Chi et al. 2023, arXiv:2303.04137) with a small residual MLP.

    In brackets: the value of that paper's state-based policies where it differs.
    """

    hidden: int = 256
    """Width of the residual stream."""
    expansion: int = 512
    """Width inside a residual block."""
    blocks: int = 2
    """Residual blocks: layer norm, linear, GELU, linear."""
    time_features: int = 32
    """Sinusoidal features of the denoising step. [256]"""

    diffusion_steps: int = 50
    """Denoising steps T of the training process, squared-cosine betas. [100]"""
    inference_steps: int = 8
    """DDIM steps when sampling (Song et al. 2021, eta 0). [100 DDPM, 10 DDIM on a robot]"""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("hidden", "expansion", "diffusion_steps", "inference_steps")
        if self.inference_steps > self.diffusion_steps:
            raise ConfigError(
                f"inference_steps {self.inference_steps} is more than the {self.diffusion_steps} diffusion_steps"
            )
        if self.time_features < 2 or self.time_features % 2:
            raise ConfigError(f"time_features is {self.time_features}, expected an even number (sines and cosines)")
