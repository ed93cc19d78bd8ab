"""Every hyper-parameter of the small token policy, one line each; flags of `steer train policy:openvla`. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from policies.config import TrainingConfig
from steer.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TokenChunkConfig(TrainingConfig):
    """An OpenVLA-style policy of our own: the H x A numbers of a chunk are tokens of a small Llama, one after the other.

    In brackets: the value of OpenVLA (Kim et al. 2024, arXiv:2406.09246), which proposes one step.
    """

    hidden: int = 96
    """Width of the Llama. [4096]"""
    layers: int = 2
    """Its layers. [32]"""
    heads: int = 4
    """Attention heads of each layer. [32]"""
    expansion: int = 192
    """Width inside its gated MLP. [11008]"""
    bins: int = 256
    """Tokens that divide [-1, 1] evenly. [256]"""
    state_tokens: int = 2
    """Tokens that all vectors of the observation become together. [none]"""
    image_size: int = 56
    """Images are resized to so many pixels, square. [224]"""
    patch_size: int = 14
    """Pixels of a patch, square. [14]"""
    vision_width: int = 64
    """Width of the vision transformer. [1024 and 1152]"""
    vision_layers: int = 2
    """Its blocks. [23 and 26]"""

    lora_rank: int = 0
    """Train adapters of this rank in the Llama and nothing else, from a checkpoint on; 0 trains everything. [32]"""

    steps: int = 3000
    """Updates."""
    batch_size: int = 64
    """Chunks per update. [2048]"""
    learning_rate: float = 2e-3
    """AdamW's peak rate. [2e-5]"""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("hidden", "layers", "heads", "expansion", "state_tokens", "vision_width", "vision_layers")
        if self.lora_rank < 0:
            raise ConfigError(f"lora_rank is {self.lora_rank}, expected 0 or more")
        if self.bins < 2:
            raise ConfigError(f"bins is {self.bins}, expected at least 2")
        if self.hidden % (2 * self.heads):
            raise ConfigError(
                f"hidden {self.hidden} is no multiple of 2 x {self.heads} heads: rotary embeddings need pairs"
            )
        if self.image_size % self.patch_size or self.patch_size < 1:
            raise ConfigError(f"image_size {self.image_size} is no multiple of patch_size {self.patch_size}")
