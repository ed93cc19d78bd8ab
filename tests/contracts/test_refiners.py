"""What every refiner keeps: it adds to the policy's candidates, moves only what it may, and repeats itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from critics.edit.network import EditConfig
from critics.edit.objective import EditObjective
from critics.q_critic import QCritic
from steer import registry
from steer.errors import ConfigError, UnsupportedError
from steer.refiner import Refiner
from tests.critics.toys import ACTION, chunks_of, make_objective, observe, tiny

SEEDS = np.array([3, 4], np.int64)


def names(folder: Path) -> dict[str, str]:
    return {"gradient": "gradient", "gaussian": "gaussian:?count=3", "edit": f"edit:{folder}"}


@pytest.fixture(scope="module")
def critic() -> QCritic:
    return make_objective(tiny()).critic()


@pytest.fixture(scope="module")
def edit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("edit") / "actor"
    EditObjective(EditConfig(hidden=(16,)), make_objective(tiny())).save(folder)
    return folder


@pytest.fixture(params=registry.kinds(registry.REFINERS))
def refiner(request: pytest.FixtureRequest, critic: QCritic, edit: Path) -> Refiner:
    return registry.refiner(names(edit)[request.param], critic)


@pytest.mark.parametrize("committed", [0, 2])
def test_only_scored_steps_that_are_not_committed_move(refiner: Refiner, critic: QCritic, committed: int) -> None:
    context, candidates = critic.encode(observe(2)), chunks_of(2, 5, 6)
    before = candidates.copy()

    added, origins = refiner.refine(None, context, candidates, SEEDS, executed=4, committed=committed)

    np.testing.assert_array_equal(candidates, before)
    assert added.shape == (2, len(origins), 6, ACTION.size)
    assert origins
    assert added.dtype == np.float32
    ACTION.validate(added)
    for row in range(2):
        for chunk in added[row]:
            kept = (chunk[:committed] == candidates[row, :, :committed]).all((1, 2))
            kept &= (chunk[4:] == candidates[row, :, 4:]).all((1, 2))
            moved = (chunk[committed:4] != candidates[row, :, committed:4]).any((1, 2))
            assert (kept & moved).any()


def test_the_same_seeds_give_the_same_and_rows_do_not_meet(refiner: Refiner, critic: QCritic) -> None:
    candidates = chunks_of(2, 5, 6)
    both, _ = refiner.refine(None, critic.encode(observe(2)), candidates, SEEDS, 4, 0)
    again, _ = refiner.refine(None, critic.encode(observe(2)), candidates, SEEDS, 4, 0)
    first, _ = refiner.refine(None, critic.encode(observe(1)), candidates[:1], SEEDS[:1], 4, 0)

    np.testing.assert_array_equal(both, again)
    np.testing.assert_allclose(both[:1], first, rtol=0, atol=1e-6)


def test_nothing_to_move_is_refused(refiner: Refiner, critic: QCritic) -> None:
    with pytest.raises(UnsupportedError, match="nothing is left"):
        refiner.refine(None, critic.encode(observe(2)), chunks_of(2, 5, 6), SEEDS, executed=4, committed=4)


def test_unknown_options_are_refused(critic: QCritic, edit: Path) -> None:
    for name in ("gradient:", "gaussian:", f"edit:{edit}"):
        with pytest.raises(ConfigError, match="has no options"):
            registry.refiner(f"{name}?wrong=1", critic)


def test_a_place_is_for_those_that_are_read_from_one(critic: QCritic) -> None:
    for name in ("gradient:here", "gaussian:here"):
        with pytest.raises(ConfigError, match="not read from anywhere"):
            registry.refiner(name, critic)
    with pytest.raises(ConfigError, match="give its checkpoint folder"):
        registry.refiner("edit", critic)
