"""`DenoiserConfig`: the choice of a backbone and the sizes of each; flags of `steer train`. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from policies.config import TrainingConfig
from steer.errors import ConfigError


@dataclass(frozen=True)
class UnetConfig:
    """A 1-D U-Net over the steps of the chunk. In brackets: Chi et al. 2023's state-based policies."""

    channels: tuple[int, ...] = (32, 64)
    """Channels of each level; every further level halves the steps. [256, 512, 1024]"""
    kernel: int = 5
    """Steps under a convolution, odd. [5]"""
    groups: int = 8
    """Groups of the group norms. [8]"""
    condition: int = 128
    """Width of the hidden layers that read observation and time, once for all candidates. [none for observations, 1024]"""

    def check(self, horizon: int) -> None:
        """Raise `ConfigError` for sizes that no network can have."""
        if not self.channels or any(c < 1 or self.groups < 1 or c % self.groups for c in self.channels):
            raise ConfigError(f"unet.channels are {self.channels}, expected multiples of unet.groups {self.groups}")
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ConfigError(f"unet.kernel is {self.kernel}, expected an odd number")
        if self.condition < 1:
            raise ConfigError(f"unet.condition is {self.condition}, expected at least 1")
        halvings = len(self.channels) - 1
        if horizon % 2**halvings:
            raise ConfigError(
                f"horizon is {horizon}, expected a multiple of {2**halvings}: {len(self.channels)} unet.channels halve it "
                f"{halvings} times; give fewer, or another horizon"
            )


@dataclass(frozen=True)
class TransformerConfig:
    """One token per step of the chunk. In brackets: Chi et al. 2023's state-based policies."""

    width: int = 96
    """Width of a token. [256]"""
    heads: int = 4
    """Attention heads. [4]"""
    blocks: int = 2
    """Blocks: self-attention, cross-attention to time and observations, and an MLP. [8]"""
    expansion: int = 4
    """Width inside an MLP, in widths of a token. [4]"""

    def check(self) -> None:
        """Raise `ConfigError` for sizes that no network can have."""
        for name in ("width", "heads", "blocks", "expansion"):
            if getattr(self, name) < 1:
                raise ConfigError(f"transformer.{name} is {getattr(self, name)}, expected at least 1")
        if self.width % self.heads:
            raise ConfigError(
                f"transformer.width is {self.width}, expected a multiple of {self.heads} transformer.heads"
            )


@dataclass(frozen=True, kw_only=True)
class DenoiserConfig(TrainingConfig):
    """Training, and the network that corrects a noisy chunk."""

    backbone: Literal["mlp", "unet", "transformer"] = "mlp"
    """Residual MLP over the flattened chunk, 1-D U-Net, or transformer. [unet]"""
    hidden: int = 256
    """mlp: width of the residual stream."""
    expansion: int = 512
    """mlp: width inside a residual block."""
    blocks: int = 2
    """mlp: residual blocks (layer norm, linear, GELU, linear)."""
    time_features: int = 32
    """Sinusoidal features of the denoising time. [256]"""
    unet: UnetConfig = UnetConfig()
    """Sizes of the U-Net."""
    transformer: TransformerConfig = TransformerConfig()
    """Sizes of the transformer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("hidden", "expansion", "blocks")
        if self.time_features < 2 or self.time_features % 2:
            raise ConfigError(f"time_features is {self.time_features}, expected an even number (sines and cosines)")
        if self.backbone == "unet":
            self.unet.check(self.horizon)
        if self.backbone == "transformer":
            self.transformer.check()
