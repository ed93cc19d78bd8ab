import pytest
import torch
from diffusers import DDIMScheduler

from policies.diffusion.schedule import alphas_cumprod, ddim_levels


@pytest.mark.parametrize(("diffusion_steps", "inference_steps"), [(50, 8), (100, 10), (50, 50), (50, 16)])
def test_the_table_is_diffusers_ddim_step_for_step(diffusion_steps: int, inference_steps: int) -> None:
    scheduler = DDIMScheduler(
        num_train_timesteps=diffusion_steps,
        beta_schedule="squaredcos_cap_v2",
        clip_sample=True,
        prediction_type="epsilon",
        timestep_spacing="linspace",
    )
    scheduler.set_timesteps(inference_steps)
    levels = ddim_levels(alphas_cumprod(diffusion_steps), inference_steps)
    generator = torch.Generator().manual_seed(0)
    ours = theirs = torch.randn(3, 8, generator=generator)

    assert [level.time for level in levels] == scheduler.timesteps.tolist()
    lower = [level.time for level in levels[1:]] + [-1]
    for level, timestep, following in zip(levels, scheduler.timesteps, lower, strict=True):
        # diffusers goes down by a fixed T // n, which is not where its own next timestep is: tell it where we go.
        gap = level.time - following
        scheduler.num_inference_steps = next(n for n in range(1, diffusion_steps + 1) if diffusion_steps // n == gap)
        eps = torch.randn(3, 8, generator=generator)
        ours = level.step(ours, eps)
        theirs = scheduler.step(eps, timestep, theirs, eta=0.0).prev_sample
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)


def test_noise_is_added_as_diffusers_adds_it() -> None:
    scheduler = DDIMScheduler(num_train_timesteps=50, beta_schedule="squaredcos_cap_v2")
    clean, noise = torch.randn(2, 3, 8)
    level = ddim_levels(alphas_cumprod(50), 8)[2]

    expected = scheduler.add_noise(clean, noise, torch.tensor([level.time] * 3))

    torch.testing.assert_close(level.at(clean, noise), expected)


def test_the_last_level_returns_the_clean_chunk_within_bounds() -> None:
    last = ddim_levels(alphas_cumprod(50), 8)[-1]
    x = torch.tensor([[5.0, -5.0, 0.5]])

    got = last.step(x, torch.zeros(1, 3))

    torch.testing.assert_close(got, torch.tensor([[1.0, -1.0, 0.5 / last.signal]]))
