"""What holds of the training of every family and backbone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from policies.config import TrainingConfig, chunk_sampler
from steer.checkpoints import read_checkpoint
from steer.errors import SpecError
from steer.observation import Batch, Task
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


def test_instructions_of_any_length_change_nothing(config: TrainingConfig, tmp_path: Path) -> None:
    policy = toys.saved(toys.make(config, toys.random_frames()), tmp_path / "policy")
    seen = toys.batch(policy)
    told = [Batch(seen.arrays, seen.mask, (Task(text),)) for text in ("", "pick up the cube " * 118)]

    plain, *others = (policy.sample(policy.encode(batch), 3, np.array([1])) for batch in (seen, *told))

    for other in others:
        np.testing.assert_array_equal(other, plain)


def test_an_image_of_another_size_than_in_training_is_refused(tmp_path: Path) -> None:
    config = replace(toys.SMALL, keys=("state", "camera.front"))
    policy = toys.saved(toys.make(config, toys.image_frames()), tmp_path / "policy")
    seen = toys.batch(policy)
    larger = {**seen.arrays, "camera.front": np.zeros((1, 1, 24, 32, 3), np.uint8)}

    with pytest.raises(SpecError, match=r"camera.front: got shape \(1, 1, 24, 32, 3\), expected \(\*, \*, 16, 16, 3\)"):
        policy.encode(Batch(larger, seen.mask, seen.tasks))
