"""What holds of the training of every family and backbone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from policies.config import TrainingConfig, chunk_sampler
from steer.checkpoints import read_checkpoint
from tests.policies import toys


@pytest.fixture(params=toys.VARIANTS)
def config(request: pytest.FixtureRequest) -> TrainingConfig:
    return toys.VARIANTS[request.param]


def test_the_loss_goes_down(config: TrainingConfig) -> None:
    data = toys.random_frames()
    objective, sampler = toys.make(replace(config, learning_rate=3e-3), data), chunk_sampler(config, data)

    losses = [float(objective.step(sampler.sample())["loss"]) for _ in range(60)]

    # A likelihood goes below zero; all begin above it.
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:5])


def test_a_restored_objective_continues_bit_for_bit(config: TrainingConfig) -> None:
    data = toys.random_frames()
    whole = toys.trained(config, data, steps=5)
    sampler = chunk_sampler(config, data, 9)
    batches = [sampler.sample() for _ in range(5)]
    other = toys.make(replace(config, steps=5), data, seed=4)
    other.restore(whole.state())

    expected = [float(whole.step(batch)["loss"]) for batch in batches]

    assert [float(other.step(batch)["loss"]) for batch in batches] == expected
    for a, b in zip(whole.ema.shadow_params, other.ema.shadow_params, strict=True):
        assert torch.equal(a, b)


def test_a_start_is_continued(config: TrainingConfig, tmp_path: Path) -> None:
    data = toys.random_frames()
    toys.trained(config, data, steps=2).save(tmp_path / "start")
    start = read_checkpoint(tmp_path / "start")

    objective = toys.make(config, data, seed=8, start=start)
    objective.save(tmp_path / "again")

    again = read_checkpoint(tmp_path / "again")
    assert (again.spec, again.transforms) == (start.spec, start.transforms)
    for name, value in start.weights.items():
        np.testing.assert_array_equal(again.weights[name], value)


def test_training_leaves_no_weight_where_it_was(config: TrainingConfig) -> None:
    data = toys.random_frames()
    before, after = toys.make(config, data), toys.trained(config, data, steps=3)

    for (name, a), b in zip(before.network.named_parameters(), after.network.parameters(), strict=True):
        assert not torch.equal(a, b), name
