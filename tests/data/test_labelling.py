"""A classifier labels a store: what it overwrites, and how its agreement with others is counted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from steer.classifier import ClassifierSpec
from steer.data.labelling import Agreement, label_store
from steer.data.store import EpisodeStore
from steer.observation import ObservationSpec
from steer.spec import Array
from tests.critics.reward import toys


class NearTheGoal:
    """Success is where x > 0.75 in the last frame."""

    version = "v1"
    spec = ClassifierSpec(ObservationSpec((toys.STATE,)), 0.5)

    def probability(self, observations: Mapping[str, Array]) -> Array:
        return (observations["state"][:, 0] > 0.75).astype(np.float32)


@pytest.fixture
def store(tmp_path: Path) -> EpisodeStore:
    """Two labelled by a simulator, one of each kind; then four that nobody labelled, of which 2 and 4 reach the goal."""
    return toys.make_store(tmp_path / "store", [True, False, None, None, None, None])


def outcomes(store: EpisodeStore) -> list[bool | None]:
    return [record.success for record in EpisodeStore.open(store.path).records()]


def test_what_nobody_labelled_is_labelled_and_the_rest_is_compared(store: EpisodeStore) -> None:
    store.label("000000-000/1", True, "somebody")  # wrongly
    done = label_store(store, NearTheGoal())
    assert (done.successes, done.failures) == (("000000-000/2", "000000-000/4"), ("000000-000/3", "000000-000/5"))
    assert done.agreement == Agreement(true_success=1, false_failure=1)
    assert outcomes(store) == [True, True, True, False, True, False]
    assert {record.success_source for record in store.records()} == {"simulator", "somebody", "classifier:v1"}
    again = label_store(store, NearTheGoal())
    assert (again.successes, again.failures, again.agreement) == ((), (), done.agreement)


def test_everything_may_be_labelled_anew_or_nothing(store: EpisodeStore) -> None:
    before = outcomes(store)
    none = label_store(store, NearTheGoal(), "none")
    assert (none.successes, none.failures, outcomes(store)) == ((), (), before)
    assert none.agreement.true_success == 1
    done = label_store(store, NearTheGoal(), "all")
    assert len(done.successes) + len(done.failures) == 6
    assert {record.success_source for record in store.records()} == {"classifier:v1"}
    assert label_store(store, NearTheGoal(), "none").agreement == Agreement()  # nobody else is left to agree with


def test_some_episodes_alone(store: EpisodeStore) -> None:
    done = label_store(store, NearTheGoal(), episodes=[3])
    assert (done.successes, done.failures, done.agreement.episodes) == ((), ("000000-000/3",), 0)


def test_counts_of_agreement() -> None:
    counts = Agreement()
    for known, said in [(True, True), (True, False), (False, True), (False, False), (False, False)]:
        counts = counts.and_one(known, said)
    assert counts == Agreement(true_success=1, false_success=1, true_failure=2, false_failure=1)
    assert counts.episodes == 5
