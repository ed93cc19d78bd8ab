"""Every hyper-parameter of the diffusion policy, one line each; also the flags of `steer train policy`. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from steer.errors import ConfigError


@dataclass(frozen=True)
class DiffusionConfig:
    """Diffusion policy (Chi et al. 2023, arXiv:2303.04137) with a small residual MLP.

    In brackets: the value of that paper's state-based policies where it differs.
    """

    keys: tuple[str, ...] = ("state",)
    """Observation keys that the policy sees: vectors, or images uint8[h, w, 3]."""
    horizon: int = 4
    """H, steps of a chunk. [16]"""
    window: int = 1
    """T, frames of history, flattened. [2]"""
    near_field_m: float = 0.04
    """Scale of tanh(displacement / scale) features appended to vectors; 0 leaves them out. [none]"""

    hidden: int = 256
    """Width of the residual stream."""
    expansion: int = 512
    """Width inside a residual block."""
    blocks: int = 2
    """Residual blocks: layer norm, linear, GELU, linear."""
    time_features: int = 32
    """Sinusoidal features of the denoising step. [256]"""
    image_features: int = 64
    """Features per image from the convolutional encoder."""

    diffusion_steps: int = 50
    """Denoising steps T of the training process, squared-cosine betas. [100]"""
    inference_steps: int = 8
    """DDIM steps when sampling (Song et al. 2021, eta 0). [100 DDPM, 10 DDIM on a robot]"""

    steps: int = 6000
    """Updates."""
    batch_size: int = 256
    """Chunks per update. [256]"""
    learning_rate: float = 1e-3
    """AdamW's peak rate. [1e-4]"""
    warmup_steps: int = 200
    """Updates of linear warm-up. [500]"""
    final_rate: float = 0.02
    """Share of the peak rate at the end of the cosine. [0]"""
    weight_decay: float = 1e-4
    """AdamW's decoupled weight decay. [1e-6]"""
    grad_clip: float = 1.0
    """Largest global gradient norm. [none]"""
    ema_decay: float = 0.999
    """Average of the weights that is served: decay min(this, (1 + k) / (10 + k)) at update k. [0.9999]"""

    def __post_init__(self) -> None:
        positive = (
            "horizon",
            "window",
            "hidden",
            "expansion",
            "diffusion_steps",
            "inference_steps",
            "steps",
            "batch_size",
        )
        for name in positive:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected at least 1")
        if not self.keys:
            raise ConfigError("keys is empty: the policy must see at least one observation")
        if self.inference_steps > self.diffusion_steps:
            raise ConfigError(
                f"inference_steps {self.inference_steps} is more than the {self.diffusion_steps} diffusion_steps"
            )
        if self.time_features < 2 or self.time_features % 2:
            raise ConfigError(f"time_features is {self.time_features}, expected an even number (sines and cosines)")
