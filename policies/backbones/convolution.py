"""Convolutions over the few steps of a chunk, [N, L steps, C channels], each as one matrix product.

With the channels last, the K steps under a tap lie side by side, so a convolution is a product of windows, which are copied in one
run each, with its weight: half the time of torch's own on a CPU at 8 steps of 128 channels.

Where a kernel covers most of the steps and the layer is small, the whole convolution is one matrix from (L, I) to (L', O)
numbers in which every tap stands several times and the rest is zero: hardly more to multiply, and nothing to copy. Parameters,
their names and the values are those of torch's convolutions, up to rounding.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

# Steps per tap, and numbers in the matrix, up to which it was measured to be faster than windows at 1 to 32 rows.
_STEPS_PER_TAP = 1.5
_LARGEST_MATRIX = 1 << 17


class Unrolled(nn.Module):
    """A convolution's whole matrix. `table`: int64[L', L], the tap that leads from a step to a step, K where none does."""

    table: Tensor

    def __init__(self, table: Int[Tensor, "m l"]) -> None:
        super().__init__()
        self.register_buffer("table", table, persistent=False)

    def matrix(self, weight: Float[Tensor, "o i k"]) -> Float[Tensor, "mo li"]:
        taps = nn.functional.pad(weight, (0, 1))[:, :, self.table]
        return taps.permute(2, 0, 3, 1).flatten(2).flatten(0, 1)

    def forward(
        self, x: Float[Tensor, "n l i"], matrix: Float[Tensor, "mo li"], bias: Float[Tensor, " o"]
    ) -> Float[Tensor, "n m o"]:
        rows = nn.functional.linear(x.flatten(1), matrix, bias.repeat(len(self.table)))
        return rows.view(len(x), -1, len(bias))


class Windows(nn.Module):
    """A convolution as a product of its windows: `kernel` steps from every `stride`-th on, between `before` and `after` zeros."""

    def __init__(self, kernel: int, stride: int, before: int, after: int) -> None:
        super().__init__()
        self.kernel, self.stride, self.pads = kernel, stride, (0, 0, before, after)

    def matrix(self, weight: Float[Tensor, "o i k"]) -> Float[Tensor, "o ki"]:
        return weight.transpose(1, 2).flatten(1)

    def forward(
        self, x: Float[Tensor, "n l i"], matrix: Float[Tensor, "o ki"], bias: Float[Tensor, " o"]
    ) -> Float[Tensor, "n m o"]:
        padded = nn.functional.pad(x, self.pads)
        rows, steps, inputs = padded.shape
        last = (steps - self.kernel) // self.stride + 1
        strides = (steps * inputs, self.stride * inputs, 1)
        windows = padded.as_strided((rows, last, self.kernel * inputs), strides).reshape(rows * last, -1)
        return nn.functional.linear(windows, matrix, bias).view(rows, last, -1)


class StepConvolution(nn.Conv1d):
    """A convolution with zero padding on chunks of `steps` steps."""

    def __init__(self, inputs: int, outputs: int, kernel: int, steps: int, stride: int = 1) -> None:
        pad = kernel // 2
        super().__init__(inputs, outputs, kernel, stride, padding=pad)
        last = (steps + 2 * pad - kernel) // stride + 1
        taps = torch.arange(steps) - stride * torch.arange(last)[:, None] + pad
        small = steps * inputs * last * outputs <= _LARGEST_MATRIX and steps <= _STEPS_PER_TAP * kernel
        self.product = Unrolled(_inside(taps, kernel)) if small else Windows(kernel, stride, pad, pad)
        self._frozen: Tensor | None = None

    def forward(self, x: Float[Tensor, "n l i"]) -> Float[Tensor, "n m o"]:
        matrix = self.product.matrix(self.weight) if self._frozen is None else self._frozen
        result: Tensor = self.product(x, matrix, self.bias)
        return result

    def freeze(self) -> None:
        """Prepare for weights that will not change."""
        self._frozen = _as_read(self.product.matrix(self.weight.detach()))


class StepDoubling(nn.ConvTranspose1d):
    """A transposed convolution of 4 taps that doubles `steps` steps."""

    def __init__(self, channels: int, steps: int) -> None:
        super().__init__(channels, channels, 4, stride=2, padding=1)
        taps = torch.arange(2 * steps)[:, None] - 2 * torch.arange(steps) + 1
        small = 2 * (steps * channels) ** 2 <= _LARGEST_MATRIX and steps <= _STEPS_PER_TAP * 4
        self.product: Unrolled | Windows = Unrolled(_inside(taps, 4)) if small else Windows(3, 1, 1, 1)
        self._frozen: Tensor | None = None

    def forward(self, x: Float[Tensor, "n l c"], output_size: list[int] | None = None) -> Float[Tensor, "n m c"]:
        matrix = self._matrix(self.weight) if self._frozen is None else self._frozen
        assert self.bias is not None
        if isinstance(self.product, Unrolled):
            result: Tensor = self.product(x, matrix, self.bias)
            return result
        # A window makes two steps, which lie side by side.
        pairs: Tensor = self.product(x, matrix, self.bias.repeat(2))
        return pairs.view(len(x), 2 * x.shape[1], -1)

    def freeze(self) -> None:
        """Prepare for weights that will not change."""
        self._frozen = _as_read(self._matrix(self.weight.detach()))

    def _matrix(self, weight: Float[Tensor, "i o k"]) -> Float[Tensor, "n k"]:
        swapped = weight.transpose(0, 1)
        if isinstance(self.product, Unrolled):
            return self.product.matrix(swapped)
        # Of the steps before, here and after, an even step reads taps 3, 1 and none, an odd one none, 2 and 0.
        none = torch.zeros_like(swapped[..., 0])
        even = torch.stack([swapped[..., 3], swapped[..., 1], none], dim=-1)
        odd = torch.stack([none, swapped[..., 2], swapped[..., 0]], dim=-1)
        return self.product.matrix(torch.cat([even, odd]))


class Pointwise(nn.Conv1d):
    """A convolution of one tap: a linear layer at every step."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1)

    def forward(self, x: Float[Tensor, "n l i"]) -> Float[Tensor, "n l o"]:
        return nn.functional.linear(x, self.weight[:, :, 0], self.bias)


class StepNorm(nn.GroupNorm):
    """A group norm over the steps and the channels of each group."""

    def forward(self, x: Float[Tensor, "n l c"]) -> Float[Tensor, "n l c"]:
        if torch.is_grad_enabled():
            # The gradient of the form below crashes the process (torch 2.13).
            return super().forward(x.transpose(1, 2).contiguous()).transpose(1, 2)
        # As an image of one row with its channels last, which torch normalises where it lies.
        return super().forward(x.transpose(1, 2).unsqueeze(2)).squeeze(2).transpose(1, 2)


def _inside(taps: Int[Tensor, "m l"], kernel: int) -> Int[Tensor, "m l"]:
    """taps: also beyond the kernel's ends, which become K."""
    return torch.where((taps >= 0) & (taps < kernel), taps, kernel)


def _as_read(matrix: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """Laid out in the order in which a product of few rows reads it."""
    return matrix.t().contiguous().t()
