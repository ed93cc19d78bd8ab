"""The convolutions of a chunk are torch's, with its gradients, whichever way they are multiplied."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from policies.backbones.convolution import Pointwise, StepConvolution, StepDoubling, StepNorm, Unrolled, Windows


@pytest.mark.parametrize("steps", [1, 2, 4, 6, 8, 16])
@pytest.mark.parametrize(("kernel", "stride"), [(5, 1), (3, 1), (3, 2), (1, 1)])
def test_a_step_convolution_is_torchs_with_its_gradient(kernel: int, stride: int, steps: int) -> None:
    ours = StepConvolution(3, 4, kernel, steps, stride)
    same(ours, lambda x: nn.functional.conv1d(x, ours.weight, ours.bias, stride, kernel // 2), torch.randn(2, steps, 3))


@pytest.mark.parametrize("steps", [1, 2, 4, 8, 16])
def test_doubling_is_torchs_transposed_convolution(steps: int) -> None:
    ours = StepDoubling(3, steps)
    same(
        ours,
        lambda x: nn.functional.conv_transpose1d(x, ours.weight, ours.bias, stride=2, padding=1),
        torch.randn(2, steps, 3),
    )


def test_pointwise_is_torchs_convolution_of_one_tap() -> None:
    ours = Pointwise(3, 4)
    same(ours, lambda x: nn.functional.conv1d(x, ours.weight, ours.bias), torch.randn(2, 4, 3))


def test_the_norm_is_torchs_over_steps_and_the_channels_of_a_group() -> None:
    ours = StepNorm(2, 4)
    torch.nn.init.normal_(ours.weight)
    x = torch.randn(2, 8, 4)
    same(ours, lambda x: nn.functional.group_norm(x, 2, ours.weight, ours.bias), x)
    with torch.inference_mode():
        served = ours(x)
    torch.testing.assert_close(served, ours(x))


def test_small_layers_over_short_chunks_are_unrolled_and_others_are_not() -> None:
    assert isinstance(StepConvolution(3, 4, 5, 4).product, Unrolled)
    assert isinstance(StepConvolution(3, 4, 5, 16).product, Windows)
    assert isinstance(StepConvolution(256, 256, 5, 4).product, Windows)
    assert isinstance(StepDoubling(256, 4).product, Windows)


@pytest.mark.parametrize("steps", [4, 16])
def test_a_frozen_convolution_gives_the_same_and_no_longer_follows_its_weight(steps: int) -> None:
    for convolution in (StepConvolution(3, 3, 5, steps), StepDoubling(3, steps)):
        x = torch.randn(2, steps, 3)
        before = convolution(x)
        convolution.freeze()
        torch.testing.assert_close(convolution(x), before)
        convolution.weight.data.zero_()
        torch.testing.assert_close(convolution(x), before)


def same(ours: nn.Module, theirs: Callable[[Tensor], Tensor], x: Tensor) -> None:
    """theirs: of [N, C, L]."""
    got, expected = ours(x), theirs(x.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    gradients = [torch.autograd.grad(value.square().sum(), list(ours.parameters())) for value in (got, expected)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
