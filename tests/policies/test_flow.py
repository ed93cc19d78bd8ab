import numpy as np
import torch
from scipy import stats

from policies.flow.path import BETA_LIMIT, beta_times, euler_levels, point


def test_a_path_goes_straight_from_noise_to_the_chunk() -> None:
    chunk, noise = torch.tensor([[1.0, -1.0]]), torch.tensor([[0.0, 3.0]])

    torch.testing.assert_close(point(chunk, noise, 0.0), noise)
    torch.testing.assert_close(point(chunk, noise, 0.25), torch.tensor([[0.25, 2.0]]))
    torch.testing.assert_close(point(chunk, noise, torch.tensor([[1.0]])), chunk)


def test_euler_steps_along_the_true_velocity_end_at_the_chunk() -> None:
    chunk, noise = torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    x = noise
    for level in euler_levels(7):
        torch.testing.assert_close(x, level.at(chunk, noise), atol=1e-5, rtol=1e-5)
        x = level.step(x, chunk - noise)

    torch.testing.assert_close(x, chunk, atol=1e-5, rtol=1e-5)


def test_beta_times_have_pi0s_distribution() -> None:
    times = beta_times(torch.rand(4000, generator=torch.Generator().manual_seed(0))).numpy()

    assert 0 <= times.min() <= times.max() <= BETA_LIMIT
    assert stats.kstest(1 - times / BETA_LIMIT, stats.beta(1.5, 1).cdf).pvalue > 0.01
    assert np.mean(times < 0.5) > 0.6
