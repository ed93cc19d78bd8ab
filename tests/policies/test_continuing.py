"""Training further from a checkpoint, on other chunks and with weights: what fine-tuning asks of every family."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from policies.diffusion.objective import DiffusionObjective
from steer.checkpoints import Checkpoint, read_checkpoint
from steer.data.sampling import ChunkBatch, ChunkSampler
from steer.errors import CheckpointError, SpecError
from tests.policies import toys


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    path = tmp_path_factory.mktemp("start") / "p"
    toys.trained(toys.SMALL, toys.random_frames(), steps=5).save(path)
    return read_checkpoint(path)


def chunks(rows: int = 64) -> ChunkBatch:
    return ChunkSampler(toys.random_frames(), 4, 1, rows, 0).sample()


def test_a_start_brings_its_spec_statistics_and_weights(start: Checkpoint, tmp_path: Path) -> None:
    shifted = toys.random_frames()
    shifted = replace(shifted, observations={"state": shifted.observations["state"] + 5})

    objective = DiffusionObjective(toys.SMALL, shifted, seed=3, start=start)
    objective.save(tmp_path / "p")

    again = read_checkpoint(tmp_path / "p")
    assert (again.spec, again.transforms) == (start.spec, start.transforms)
    for name, value in start.weights.items():
        np.testing.assert_array_equal(again.weights[name], value)


def test_a_start_of_other_sizes_is_refused(start: Checkpoint) -> None:
    with pytest.raises(CheckpointError, match="has shape"):
        DiffusionObjective(replace(toys.SMALL, hidden=16), toys.random_frames(), start=start)
    with pytest.raises(SpecError, match="trained with"):
        DiffusionObjective(replace(toys.SMALL, horizon=8), toys.random_frames(), start=start)


def test_a_start_for_another_robot_is_refused(start: Checkpoint) -> None:
    data = toys.random_frames()
    slower = replace(data, robot=replace(toys.ROBOT, action=replace(toys.ACTION, rate_hz=10.0)))

    with pytest.raises(SpecError, match="rate"):
        DiffusionObjective(toys.SMALL, slower, start=start)


def test_a_start_of_another_family_is_refused(start: Checkpoint) -> None:
    with pytest.raises(CheckpointError, match="holds a 'other'"):
        DiffusionObjective(toys.SMALL, toys.random_frames(), start=replace(start, kind="other"))


def test_weights_of_one_change_nothing() -> None:
    batch = chunks()
    plain, weighted = (DiffusionObjective(toys.SMALL, toys.random_frames()) for _ in range(2))

    expected = float(plain.step(batch)["loss"])
    got = float(weighted.step(replace(batch, weights=np.ones(64, np.float32)))["loss"])

    assert got == pytest.approx(expected, rel=1e-5)


def test_the_loss_is_linear_in_the_weights_of_the_rows() -> None:
    batch = chunks()
    first = (np.arange(64) < 20).astype(np.float32)

    def loss(weights: np.ndarray) -> float:
        objective = DiffusionObjective(toys.SMALL, toys.random_frames())
        return float(objective.step(replace(batch, weights=weights))["loss"])

    assert loss(3 * first + 1 - first) == pytest.approx(3 * loss(first) + loss(1 - first), rel=1e-5)


def test_weights_of_another_length_are_refused() -> None:
    objective = DiffusionObjective(toys.SMALL, toys.random_frames())
    with pytest.raises(SpecError, match=r"weights: got shape \(3,\), expected one for each of the 64 rows"):
        objective.step(replace(chunks(), weights=np.ones(3, np.float32)))
