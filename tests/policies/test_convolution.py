import pytest
import torch
from torch import Tensor, nn

from policies.backbones.convolution import Pointwise, StepConvolution, StepDoubling


@pytest.mark.parametrize("steps", [1, 2, 4, 6, 8])
@pytest.mark.parametrize(("kernel", "stride"), [(5, 1), (3, 1), (3, 2), (1, 1)])
def test_a_step_convolution_is_torchs_with_its_gradient(kernel: int, stride: int, steps: int) -> None:
    ours = StepConvolution(3, 4, kernel, steps, stride)
    same(ours, lambda x: nn.functional.conv1d(x, ours.weight, ours.bias, stride, kernel // 2), torch.randn(2, 3, steps))


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_doubling_is_torchs_transposed_convolution(steps: int) -> None:
    ours = StepDoubling(3, steps)
    same(
        ours,
        lambda x: nn.functional.conv_transpose1d(x, ours.weight, ours.bias, stride=2, padding=1),
        torch.randn(2, 3, steps),
    )


def test_pointwise_is_torchs_convolution_of_one_tap() -> None:
    ours = Pointwise(3, 4)
    same(ours, lambda x: nn.functional.conv1d(x, ours.weight, ours.bias), torch.randn(2, 3, 4))


def test_short_chunks_are_unrolled_and_long_ones_are_not() -> None:
    assert StepConvolution(3, 4, 5, 4).unrolled is not None
    assert StepConvolution(3, 4, 5, 16).unrolled is None


def test_a_frozen_convolution_gives_the_same_and_no_longer_follows_its_weight() -> None:
    for convolution in (StepConvolution(3, 3, 5, 4), StepDoubling(3, 4)):
        x = torch.randn(2, 3, 4)
        before = convolution(x)
        convolution.freeze()
        torch.testing.assert_close(convolution(x), before)
        convolution.weight.data.zero_()
        torch.testing.assert_close(convolution(x), before)


def same(ours: nn.Module, theirs, x: Tensor) -> None:  # type: ignore[no-untyped-def]  # any function of a tensor
    got, expected = ours(x), theirs(x)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    gradients = [torch.autograd.grad(value.square().sum(), list(ours.parameters())) for value in (got, expected)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
