"""A 1-D U-Net over the steps of a chunk, conditioned by FiLM (Chi et al. 2023, section IV-A; Perez et al. 2018).

Observation and time modulate the channels of every block. Both pass layers of their own and are then mapped linearly to all scales
and shifts at once, so the two maps can be added: the observation's is computed once, the time's once per time, and the candidates
of an observation share one row of scales and shifts. Inside, chunks are [N, L steps, C channels].

Other than there, a scale is 1 plus what is said, the observation passes a hidden layer (which costs nothing per candidate), and
SiLU stands for Mish (which took longer than the convolutions on a CPU).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from policies.backbones.base import Backbone, TimeFeatures, per_condition
from policies.backbones.convolution import Pointwise, StepConvolution, StepDoubling, StepNorm


class ConvBlock(nn.Sequential):
    """Convolution that keeps the steps, group norm, SiLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, groups: int, steps: int) -> None:
        super().__init__(
            StepConvolution(inputs, outputs, kernel, steps), StepNorm(groups, outputs), nn.SiLU(inplace=True)
        )


class FilmBlock(nn.Module):
    """x' + conv(FiLM(conv(x))), where x' is x in the channels of the output."""

    def __init__(self, inputs: int, outputs: int, kernel: int, groups: int, steps: int) -> None:
        super().__init__()
        self.first = ConvBlock(inputs, outputs, kernel, groups, steps)
        self.second = ConvBlock(outputs, outputs, kernel, groups, steps)
        self.skip = Pointwise(inputs, outputs) if inputs != outputs else nn.Identity()

    def forward(self, x: Float[Tensor, "n l i"], film: Float[Tensor, "r o2"]) -> Float[Tensor, "n l o"]:
        """film: scales less 1, then shifts; N / R consecutive rows of x share one."""
        scale, shift = film[:, None].chunk(2, dim=2)
        hidden: Tensor = self.first(x)
        grouped = hidden.reshape(len(film), -1, hidden.shape[2])
        modulated = torch.addcmul(shift, grouped, 1 + scale).view(hidden.shape)
        output: Tensor = self.second(modulated) + self.skip(x)
        return output


class Level(nn.Module):
    """Two blocks in a row."""

    def __init__(self, inputs: int, outputs: int, kernel: int, groups: int, steps: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(FilmBlock(i, outputs, kernel, groups, steps) for i in (inputs, outputs))
        self.film_size = 4 * outputs

    def forward(self, x: Float[Tensor, "n l i"], film: Float[Tensor, "r o4"]) -> Float[Tensor, "n l o"]:
        """film: of the first block, then of the second."""
        for block, part in zip(self.blocks, film.chunk(2, dim=1), strict=True):
            x = block(x, part)
        return x


class Unet(Backbone):
    """Chunks of H = `horizon` steps with A = `axes` numbers each; H is a multiple of 2^(levels - 1)."""

    def __init__(
        self,
        horizon: int,
        axes: int,
        features: int,
        channels: Sequence[int],
        kernel: int,
        groups: int,
        condition: int,
        time_features: int,
    ) -> None:
        """features: of the observation; channels: per level; condition: width of the layers that read observation and time."""
        super().__init__()
        self.shape = (horizon, axes)

        def level(inputs: int, outputs: int, depth: int) -> Level:
            return Level(inputs, outputs, kernel, groups, horizon >> depth)

        pairs = list(enumerate(zip((axes, *channels[:-1]), channels, strict=True)))
        upper, bottom = list(enumerate(channels))[:-1], channels[-1]
        self.down = nn.ModuleList(level(i, o, depth) for depth, (i, o) in pairs)
        self.shrink = nn.ModuleList(StepConvolution(c, c, 3, horizon >> depth, stride=2) for depth, c in upper)
        self.middle = level(bottom, bottom, len(upper))
        self.up = nn.ModuleList(level(2 * o, i, depth) for depth, (i, o) in reversed(pairs[1:]))
        self.grow = nn.ModuleList(StepDoubling(c, horizon >> depth + 1) for depth, c in reversed(upper))
        self.head = nn.Sequential(
            ConvBlock(channels[0], channels[0], kernel, groups, horizon), Pointwise(channels[0], axes)
        )
        self._films = [module.film_size for module in self.modules() if isinstance(module, Level)]
        films = sum(self._films)
        self.from_condition = nn.Sequential(nn.Linear(features, condition), nn.SiLU(), nn.Linear(condition, films))
        self.from_time = nn.Sequential(
            TimeFeatures(time_features),
            nn.Linear(time_features, condition),
            nn.SiLU(),
            nn.Linear(condition, films, bias=False),
        )

    def freeze(self) -> None:
        for module in self.modules():
            if isinstance(module, (StepConvolution, StepDoubling)):
                module.freeze()

    def embed_condition(self, features: Float[Tensor, "b c"]) -> Float[Tensor, "b w"]:
        """The observation's part of every scale and shift."""
        part: Tensor = self.from_condition(features)
        return part

    def embed_time(self, times: Shaped[Tensor, " s"]) -> Float[Tensor, "s w"]:
        """The time's part of every scale and shift."""
        part: Tensor = self.from_time(times)
        return part

    def forward(self, x: Float[Tensor, "*n c"], embedding: Float[Tensor, "*#n w"]) -> Float[Tensor, "*n c"]:
        chunks, rows = per_condition(x, embedding)
        films = iter(torch.split(rows, self._films, dim=1))
        h = chunks.reshape(-1, *self.shape)
        kept = []
        for level, shrink in zip(self.down, (*self.shrink, nn.Identity()), strict=True):
            h = level(h, next(films))
            kept.append(h)
            h = shrink(h)
        h = self.middle(h, next(films))
        for level, grow in zip(self.up, self.grow, strict=True):
            h = grow(level(torch.cat([h, kept.pop()], dim=2), next(films)))
        correction: Tensor = self.head(h)
        return correction.reshape(x.shape)
