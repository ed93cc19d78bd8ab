"""Every hyper-parameter of the diffusion policy, one line each; also the flags of `steer train policy`. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from policies.backbones.config import DenoiserConfig
from steer.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig(DenoiserConfig):
    """Diffusion policy (Chi et al. 2023, arXiv:2303.04137).

    In brackets: the value of that paper's state-based policies where it differs.
    """

    diffusion_steps: int = 50
    """Denoising steps T of the training process, squared-cosine betas. [100]"""
    inference_steps: int = 8
    """DDIM steps when sampling (Song et al. 2021, eta 0). [100 DDPM, 10 DDIM on a robot]"""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("diffusion_steps", "inference_steps")
        if self.inference_steps > self.diffusion_steps:
            raise ConfigError(
                f"inference_steps {self.inference_steps} is more than the {self.diffusion_steps} diffusion_steps"
            )
