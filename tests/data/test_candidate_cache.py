"""The candidate cache: what it is keyed by, what it depends on, and that it is used."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_toys import ROBOT, make_episode

from steer.data import EpisodeStore, load_frames
from steer.data.candidates import candidates, frame_seeds
from steer.errors import SpecError, StoreError, UnsupportedError
from steer.noise import candidate_noise
from steer.observation import Batch, ObservationSpec
from steer.policy import PolicySpec


class NoisyPolicy:
    """Candidates are the newest and oldest state seen plus the keyed noise; counts the frames it was asked about."""

    def __init__(self, version: str = "v1") -> None:
        self.version = version
        self.spec = PolicySpec(ObservationSpec(ROBOT.observation.arrays, window=2), ROBOT.action, horizon=3)
        self.asked = 0

    def encode(self, observations: Batch) -> Any:
        assert observations.arrays.keys() == {"state"}
        assert len(observations.tasks) == len(observations)
        self.asked += len(observations)
        return observations.arrays["state"][:, [0, -1], 0]

    def sample(
        self, context: Any, num_samples: int, seeds: np.ndarray, temperature: float = 1.0, committed: Any = None
    ) -> np.ndarray:
        noise = candidate_noise(seeds, num_samples, (3, 2)) * np.float32(temperature)
        return np.asarray(context[:, None, None, :] + noise, np.float32)


@pytest.fixture
def filled(store: EpisodeStore) -> EpisodeStore:
    with store.writer(2) as writer:
        for value in (10, 20, 30):
            writer.add(make_episode(2, value))
    store.refresh()
    return store


def test_rows_are_in_frame_order_with_history(filled: EpisodeStore) -> None:
    found = candidates(filled, NoisyPolicy(), num_samples=2, temperature=0.0)
    assert found.shape == (9, 2, 3, 2)
    newest = load_frames(filled).observations["state"][:, 0]
    np.testing.assert_array_equal(found[:, 1, 2, 1], newest)
    np.testing.assert_array_equal(found[:, 0, 0, 0], [10, 10, 11, 20, 20, 21, 30, 30, 31])


def test_the_second_time_nothing_is_sampled(filled: EpisodeStore) -> None:
    policy = NoisyPolicy()
    first = candidates(filled, policy, 2)
    assert policy.asked == 9
    np.testing.assert_array_equal(candidates(EpisodeStore.open(filled.path), policy, 2), first)
    assert policy.asked == 9


def test_a_grown_store_costs_only_its_new_segments(filled: EpisodeStore) -> None:
    policy = NoisyPolicy()
    first = candidates(filled, policy, 2)
    with filled.writer() as writer:
        writer.add(make_episode(4, 40))
    filled.refresh()
    grown = candidates(filled, policy, 2)
    assert policy.asked == 9 + 5
    np.testing.assert_array_equal(grown[:9], first)


def test_each_part_of_the_key_matters(filled: EpisodeStore) -> None:
    first = candidates(filled, NoisyPolicy(), 2)
    for version, k, seed, temperature in (("v2", 2, 0, 1.0), ("v1", 3, 0, 1.0), ("v1", 2, 1, 1.0), ("v1", 2, 0, 0.8)):
        policy = NoisyPolicy(version)
        other = candidates(filled, policy, k, seed, temperature)
        assert policy.asked == 9
        if version == "v2":
            np.testing.assert_array_equal(other, first)
        elif k == 3:
            np.testing.assert_array_equal(other[:, :2], first)
        else:
            assert not np.array_equal(other, first)


def test_versions_that_are_no_file_names_stay_apart_and_inside(filled: EpisodeStore) -> None:
    for version in ("../../evil", "..-..-evil", "a/b", "a_b", "."):
        policy = NoisyPolicy(version)
        candidates(filled, policy, 1)
        assert policy.asked == 9, version
    assert len(list((filled.path / "candidates").iterdir())) == 5


def test_every_frame_has_a_seed_of_its_own() -> None:
    seeds = np.concatenate([frame_seeds(s, name, 1000) for s in (0, 1) for name in ("000000-000", "000001-000")])
    assert len(set(seeds.tolist())) == 4000
    assert seeds.min() >= 0
    np.testing.assert_array_equal(frame_seeds(0, "000000-000", 10), seeds[:10])


def test_batches_change_nothing_and_progress_is_told(filled: EpisodeStore, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    whole = candidates(filled, NoisyPolicy(), 2)
    pieces = candidates(
        filled, NoisyPolicy("again"), 2, progress=lambda done, total: told.append((done, total)), batch_size=4
    )
    np.testing.assert_array_equal(whole, pieces)
    assert [done for done, _ in told] == [4, 6, 6, 9, 9]
    assert {total for _, total in told} == {9}


def test_a_damaged_file_is_made_again(filled: EpisodeStore, caplog: pytest.LogCaptureFixture) -> None:
    policy = NoisyPolicy()
    first = candidates(filled, policy, 2)
    files = sorted((filled.path / "candidates").rglob("*.npy"))
    os.truncate(files[0], 200)
    np.save(files[1], np.zeros((1, 2), np.float32))
    np.testing.assert_array_equal(candidates(filled, policy, 2), first)
    assert policy.asked == 18
    assert caplog.text.count("sampling its candidates again") == 2


def test_a_full_disk_is_said(filled: EpisodeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="No space left"):
            candidates(filled, NoisyPolicy(), 2)
    assert [p for p in (filled.path / "candidates").rglob("*") if p.is_file()] == []


def test_what_the_policy_cannot_do_is_refused(filled: EpisodeStore) -> None:
    with pytest.raises(UnsupportedError):
        candidates(filled, NoisyPolicy(), 0)

    class Broken(NoisyPolicy):
        def sample(self, *args: Any, **kwargs: Any) -> np.ndarray:
            return super().sample(*args, **kwargs) * np.float32(np.nan)

    with pytest.raises(SpecError, match="finite"):
        candidates(filled, Broken(), 2)
