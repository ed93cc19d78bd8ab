"""`TrainingConfig`: what every family trained here is told, one line each; also flags of `steer train`. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from steer.data.frames import Frames
from steer.data.sampling import ChunkSampler
from steer.errors import ConfigError, MissingExtraError


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """What is seen, what is proposed, and the optimiser.

    In brackets: the value of the state-based policies of Chi et al. 2023 (arXiv:2303.04137) where it differs.
    """

    keys: tuple[str, ...] = ("state",)
    """Observation keys that the policy sees: vectors, or images uint8[h, w, 3]."""
    horizon: int = 4
    """H, steps of a chunk. [16]"""
    window: int = 1
    """T, frames of history, flattened. [2]"""
    near_field_m: float = 0.04
    """Scale of tanh(displacement / scale) features appended to vectors; 0 leaves them out. [none]"""
    image_features: int = 64
    """Features per image from the convolutional encoder."""

    steps: int = 6000
    """Updates."""
    batch_size: int = 256
    """Chunks per update. [256]"""
    learning_rate: float = 1e-3
    """AdamW's peak rate. [1e-4]"""
    warmup_steps: int = 200
    """Updates of linear warm-up. [500]"""
    final_rate: float = 0.02
    """Share of the peak rate at the end of the cosine; 1 keeps the rate. [0]"""
    weight_decay: float = 1e-4
    """AdamW's decoupled weight decay. [1e-6]"""
    grad_clip: float = 1.0
    """Largest global gradient norm. [none]"""
    ema_decay: float = 0.999
    """Average of the weights that is served: its decay. [0.9999]"""
    ema_warmup: bool = True
    """Decay by min(ema_decay, (1 + k) / (10 + k)) at update k, which forgets the weights drawn by chance; off where these are good
    ones already."""

    def __post_init__(self) -> None:
        self.require_positive("horizon", "window", "image_features", "steps", "batch_size")
        if not self.keys:
            raise ConfigError("keys is empty: the policy must see at least one observation")

    def require_positive(self, *names: str) -> None:
        """Raise `ConfigError` for a size below 1."""
        for name in names:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected at least 1")


def chunk_sampler(config: TrainingConfig, frames: Frames, seed: int = 0) -> ChunkSampler:
    """The chunks that a `ChunkObjective` expects, with the keys that the policy sees."""
    return ChunkSampler(frames, config.horizon, config.window, config.batch_size, seed, config.keys)


def require_torch(purpose: str) -> None:
    """Raise `MissingExtraError` where torch is not installed; `purpose` says what for."""
    from importlib.util import find_spec

    if find_spec("torch") is None:
        raise MissingExtraError("torch", "train", purpose)
