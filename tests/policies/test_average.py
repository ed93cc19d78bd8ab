"""The average of the weights that is served."""

from __future__ import annotations

from dataclasses import replace

import torch
from diffusers.training_utils import EMAModel

from policies.diffusion.objective import DiffusionObjective
from steer.data.sampling import ChunkSampler
from tests.policies import toys


def test_it_is_the_exponential_average_of_diffusers() -> None:
    data = toys.random_frames()
    objective, sampler = DiffusionObjective(toys.SMALL, data), ChunkSampler(data, 4, 1, 64, 0)
    copies = [parameter.detach().clone().requires_grad_() for parameter in objective.network.parameters()]
    expected = EMAModel(copies, decay=objective.config.ema_decay, foreach=True)
    for _ in range(15):
        objective.step(sampler.sample())
        expected.step(objective.network.parameters())

    for ours, its, newest in zip(
        objective.ema.shadow_params, expected.shadow_params, objective.network.parameters(), strict=True
    ):
        torch.testing.assert_close(ours, its, rtol=1e-5, atol=1e-7)
        assert not torch.equal(ours, newest)
    assert objective.ema.state_dict()["optimization_step"] == expected.state_dict()["optimization_step"] == 15


def test_without_warm_up_a_few_updates_move_it_little() -> None:
    data = toys.random_frames()
    config = replace(toys.SMALL, ema_decay=0.9, ema_warmup=False)
    objective, sampler = DiffusionObjective(config, data), ChunkSampler(data, 4, 1, 64, 0)
    before = [parameter.detach().clone() for parameter in objective.network.parameters()]
    objective.step(sampler.sample())

    moved = zip(objective.ema.shadow_params, before, objective.network.parameters(), strict=True)
    for ours, was, newest in moved:
        torch.testing.assert_close(ours, torch.lerp(was, newest, 0.1), rtol=1e-4, atol=1e-7)
