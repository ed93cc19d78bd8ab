"""The image encoder of V-GPS: a residual network (version 1) with text conditioning behind every block.

Torch layout inside (NCHW, kernels OIHW); `critics.vgps.published` relates the names. Padding is the published
code's SAME: where the total is odd, the smaller half comes first, which torch's own symmetric padding is not.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from critics.vgps.config import EncoderConfig
from critics.vgps.pooling import make_pooling
from steer.errors import SpecError

NORM_EPS = 1e-5


class SameConv(nn.Conv2d):
    """Convolution without bias and with SAME padding."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, bias=False)

    def forward(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o h2 w2"]:
        return super().forward(pad_same(x, self.kernel_size[0], self.stride[0]))


def pad_same(x: Float[Tensor, "b c h w"], kernel: int, stride: int, value: float = 0.0) -> Float[Tensor, "b c h2 w2"]:
    """Pad to ceil(n / stride) windows per axis, the smaller half first."""
    sides: list[int] = []
    for n in (x.shape[3], x.shape[2]):
        total = max((-(-n // stride) - 1) * stride + kernel - n, 0)
        sides += [total // 2, total - total // 2]
    return F.pad(x, sides, value=value)


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each pixel."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class Coordinates(nn.Module):
    """Appends two channels: row position, then column position, each from -1 to 1."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h w"]:
        batch, _, height, width = x.shape
        rows = torch.linspace(-1, 1, height, device=x.device)[:, None].expand(batch, 1, height, width)
        columns = torch.linspace(-1, 1, width, device=x.device).expand(batch, 1, height, width)
        return torch.cat((x, rows, columns), 1)


class Film(nn.Module):
    """x * (1 + scale(text)) + shift(text), per channel (Perez et al. 2018)."""

    def __init__(self, text_size: int, channels: int) -> None:
        super().__init__()
        self.scale = nn.Linear(text_size, channels)
        self.shift = nn.Linear(text_size, channels)

    def forward(self, x: Float[Tensor, "b c h w"], text: Float[Tensor, "b t"]) -> Float[Tensor, "b c h w"]:
        scale, shift = self.scale(text), self.shift(text)
        conditioned: Tensor = x * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
        return conditioned


class Multiplier(nn.Module):
    """x * scale(text), per channel."""

    def __init__(self, text_size: int, channels: int) -> None:
        super().__init__()
        self.scale = nn.Linear(text_size, channels)

    def forward(self, x: Float[Tensor, "b c h w"], text: Float[Tensor, "b t"]) -> Float[Tensor, "b c h w"]:
        conditioned: Tensor = x * self.scale(text)[:, :, None, None]
        return conditioned


class Block(nn.Module):
    """Convolutions with norms, added to the input (or its projection), then activated."""

    def __init__(self, config: EncoderConfig, inputs: int, filters: int, stride: int) -> None:
        super().__init__()
        outputs = filters * config.expansion
        if config.block == "bottleneck":
            sizes = [(inputs, filters, 1, 1), (filters, filters, 3, stride), (filters, outputs, 1, 1)]
        else:
            sizes = [(inputs, filters, 3, stride), (filters, filters, 3, 1)]
        self.convs = nn.ModuleList(SameConv(*size) for size in sizes)
        self.norms = nn.ModuleList(make_norm(config, size[1]) for size in sizes)
        self.act = make_activation(config)
        projects = inputs != outputs or stride != 1
        self.conv_proj = SameConv(inputs, outputs, 1, stride) if projects else None
        self.norm_proj = make_norm(config, outputs) if projects else None

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        y = x
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            y = norm(conv(self.act(y) if i else y))
        if self.conv_proj is not None and self.norm_proj is not None:
            x = self.norm_proj(self.conv_proj(x))
        activated: Tensor = self.act(x + y)
        return activated


class Encoder(nn.Module):
    """Image and text to one vector. See the module's header."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.coordinates = Coordinates() if config.coordinates else nn.Identity()
        self.conv_init = nn.Conv2d(5 if config.coordinates else 3, config.filters, 7, 2, padding=3, bias=False)
        self.norm_init = make_norm(config, config.filters)
        self.act = make_activation(config)
        self.blocks, self.conditions = nn.ModuleList(), nn.ModuleList()
        channels = config.filters
        for stage, count in enumerate(config.stages):
            for i in range(count):
                self.blocks.append(Block(config, channels, config.filters * 2**stage, 2 if stage and not i else 1))
                channels = config.filters * 2**stage * config.expansion
                if config.conditioning != "none":
                    condition = Film if config.conditioning == "film" else Multiplier
                    self.conditions.append(condition(config.text_size, channels))
        self.pooling = make_pooling(config)

    def forward(self, images: UInt8[Tensor, "b h w 3"], text: Float[Tensor, "b t"] | None) -> Float[Tensor, "b f"]:
        """images: RGB, 0..255. text: one vector per image; None only where there is no conditioning."""
        if (text is None) != (self.config.conditioning == "none"):
            raise SpecError(
                f"text {'is missing' if text is None else 'was given'}: this encoder's conditioning is "
                f"{self.config.conditioning!r}"
            )
        x = self.coordinates(images.movedim(-1, 1).float() / 127.5 - 1)
        x = self.act(self.norm_init(self.conv_init(x)))
        x = F.max_pool2d(pad_same(x, 3, 2, -torch.inf), 3, 2)
        for i, block in enumerate(self.blocks):
            x = block(x)
            if len(self.conditions):
                x = self.conditions[i](x, text)
        encoding: Tensor = self.pooling(x)
        return encoding


def make_norm(config: EncoderConfig, channels: int) -> nn.Module:
    if config.norm == "layer":
        return ChannelNorm(channels, NORM_EPS)
    return nn.GroupNorm(config.groups, channels, NORM_EPS)


def make_activation(config: EncoderConfig) -> nn.Module:
    return nn.SiLU() if config.activation == "swish" else nn.ReLU()
