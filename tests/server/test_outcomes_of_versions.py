"""Outcomes of versions, read from what stands beside the episodes of a store."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steer.data.episode import Episode, EpisodeRecord
from steer.data.store import EpisodeStore
from steer.server.guard import Outcome
from steer.server.outcomes import Outcomes, outcome_of
from tests.fakes import ROBOT

NUMBERS = {("p3", "c3"): 3, ("p4", "c4"): 4}
BY_3 = {"policy_version": "p3", "critic_version": "c3"}


def record(success: bool | None, **info: Any) -> EpisodeRecord:
    return EpisodeRecord("id", 1, success, "key", "policy", True, False, info=info)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (record(True, **BY_3), Outcome(3, True)),
        (record(False, **BY_3), Outcome(3, False)),
        (record(True, **BY_3, version=3), Outcome(3, True)),  # an actor writes the number
        (record(False, policy_version="p9", critic_version="c9", version=3), None),  # of another run's version 3
        (record(True, policy_version="p3", critic_version="", version=3), None),  # the student alone
        (record(True, policy_version="p3", critic_version="c4"), None),  # of no version
        (record(True), None),  # scripted
        (record(None, **BY_3), None),  # nobody has judged it
        (record(None, **BY_3, stopped_by="safety"), Outcome(3, False)),
        (record(None, **BY_3, stopped_by="fault"), None),
        (record(True, **BY_3, intervention_steps=4), None),  # a person helped
        (record(True, **BY_3, intervention_steps=0), Outcome(3, True)),
        (record(True, **BY_3, versions=[{"step": 0}, {"step": 3}]), None),  # two versions played it
    ],
)
def test_an_episode_counts_for_the_version_that_decided_all_of_it(
    given: EpisodeRecord, expected: Outcome | None
) -> None:
    assert outcome_of(given, NUMBERS) == expected


def write(store: EpisodeStore, success: bool | None, **info: Any) -> None:
    observations = {"state": np.zeros((2, 3), np.float32)}
    step, earned = np.zeros((1, 3), np.float32), np.zeros(1, np.float32)
    with store.writer() as writer:
        writer.add(Episode(observations, step, earned, True, False, success, "key", info=info))


def test_a_store_that_grows_is_read_on_with_its_labels_and_past_what_is_damaged(tmp_path: Path) -> None:
    outcomes = Outcomes(tmp_path / "store")
    assert outcomes.read(NUMBERS) == ()
    store = EpisodeStore.create(tmp_path / "store", ROBOT)
    write(store, True, **BY_3)
    write(store, None, **BY_3)
    assert outcomes.read(NUMBERS) == (Outcome(3, True),)
    assert outcomes.read(NUMBERS) is outcomes.read(NUMBERS)

    store.refresh()
    store.label(store.records()[1].id, False, "key")
    store.label(store.records()[0].id, False, "key")
    write(store, True, policy_version="p4", critic_version="c4")
    (tmp_path / "store" / "segments" / "000003-000").mkdir()

    assert outcomes.read(NUMBERS) == (Outcome(3, False), Outcome(3, False), Outcome(4, True))
    assert outcomes.read({("p4", "c4"): 5}) == (Outcome(5, True),)


def test_a_store_that_was_made_anew_is_read_anew(tmp_path: Path) -> None:
    outcomes = Outcomes(tmp_path / "store")
    store = EpisodeStore.create(tmp_path / "store", ROBOT)
    write(store, True, **BY_3)
    write(store, True, **BY_3)
    assert outcomes.read(NUMBERS) == (Outcome(3, True), Outcome(3, True))
    shutil.rmtree(tmp_path / "store")
    store = EpisodeStore.create(tmp_path / "store", ROBOT)
    assert outcomes.read(NUMBERS) == ()
    write(store, False, **BY_3)
    assert outcomes.read(NUMBERS) == (Outcome(3, False),)
