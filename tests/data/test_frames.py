"""Frames against two tiny episodes written out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from store_toys import make_episode

from steer.data import EpisodeStore, Frames, load_frames
from steer.data.frames import MEMORY_LIMIT_BYTES
from steer.errors import SpecError


def write(store: EpisodeStore) -> EpisodeStore:
    with store.writer(1) as writer:
        rewards = np.array([0, 0, 1], np.float32)
        writer.add(
            make_episode(3, 10, rewards=rewards, terminated=True, truncated=False, success=True, success_source="key")
        )
        writer.add(make_episode(2, 20))
    store.refresh()
    return store


@pytest.fixture(params=[MEMORY_LIMIT_BYTES, 0], ids=["memory", "mapped"])
def frames(store: EpisodeStore, request: pytest.FixtureRequest) -> Frames:
    return load_frames(write(store), memory_limit_bytes=request.param)


def test_final_observations_are_frames(frames: Frames) -> None:
    assert frames.observations["state"][:, 0].tolist() == [10, 11, 12, 13, 20, 21, 22]
    assert frames.starts.tolist() == [0, 4]
    assert frames.lengths.tolist() == [3, 2]
    assert frames.finals.tolist() == [3, 6]
    assert frames.decisions.tolist() == [0, 1, 2, 4, 5]
    assert frames.episode_of.tolist() == [0, 0, 0, 0, 1, 1, 1]
    np.testing.assert_allclose(frames.actions[:, 0], [0, 0.01, 0.02, 0.02, 0, 0.01, 0.01])
    assert frames.rewards.tolist() == [0, 0, 1, 0, 0, 0, 0]
    assert frames.terminated.tolist() == [True, False]
    assert (frames.success.tolist(), frames.labelled.tolist()) == ([True, False], [True, False])
    assert frames.ids == ("000000-000/0", "000001-000/0")


def test_missing_labels_are_told(store: EpisodeStore, caplog: pytest.LogCaptureFixture) -> None:
    load_frames(write(store))
    assert "1 of 2 episodes have no success label" in caplog.text


def test_returns_to_go_are_discounted_per_step_and_stop_at_the_end(frames: Frames) -> None:
    np.testing.assert_array_equal(frames.mc_returns(0.5), np.array([0.25, 0.5, 1, 0, 0, 0, 0], np.float32), strict=True)


def test_windows_do_not_reach_into_the_episode_before(frames: Frames) -> None:
    arrays, mask = frames.window(np.array([2, 4, 6]), 3)
    assert arrays["state"][:, :, 0].tolist() == [[10, 11, 12], [20, 20, 20], [20, 21, 22]]
    assert mask.tolist() == [[True] * 3, [False, False, True], [True] * 3]


def test_a_subset_is_in_the_order_asked_for(frames: Frames) -> None:
    swapped = frames.subset([1, 0])
    assert swapped.observations["state"][:, 0].tolist() == [20, 21, 22, 10, 11, 12, 13]
    assert swapped.starts.tolist() == [0, 3]
    assert swapped.episode_of.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert swapped.terminated.tolist() == [False, True]
    assert swapped.ids == frames.ids[::-1]
    np.testing.assert_array_equal(frames.rows([1, 0]), [4, 5, 6, 0, 1, 2, 3])
    assert len(frames.subset([])) == 0


def test_a_split_is_a_partition_that_the_seed_decides(store: EpisodeStore) -> None:
    with store.writer() as writer:
        for value in range(10):
            writer.add(make_episode(1, value))
    store.refresh()
    frames = load_frames(store)
    train, test = frames.split(0.3, seed=1)
    assert len(test.ids) == 3
    assert sorted(train.ids + test.ids) == sorted(frames.ids)
    assert frames.split(0.3, seed=1)[1].ids == test.ids
    assert any(frames.split(0.3, seed=seed)[1].ids != test.ids for seed in range(2, 5))
    assert [len(part.ids) for part in frames.split(0.001, seed=0)] == [9, 1]
    with pytest.raises(SpecError, match=r"share of 1\.5"):
        frames.split(1.5, seed=0)


def test_chosen_episodes_and_an_empty_store(store: EpisodeStore) -> None:
    with pytest.raises(SpecError, match="no episodes"):
        load_frames(store)
    assert load_frames(write(store), [1]).ids == ("000001-000/0",)


def test_success_can_stand_in_for_rewards(frames: Frames) -> None:
    told = frames.rewarded_by_success()
    ends = frames.finals - 1
    assert told.rewards[ends].tolist() == frames.success.astype(float).tolist()
    assert told.rewards.sum() == frames.success.sum()
    assert (told.terminated | ~frames.success).all()


def test_success_can_stand_in_for_the_rewards_of_some(frames: Frames) -> None:
    told = frames.rewarded_by_success(np.array([False, True]))
    first, second = (frames.rows([e]) for e in (0, 1))
    np.testing.assert_array_equal(told.rewards[first], frames.rewards[first])
    assert told.rewards[second].sum() == float(frames.success[1])
    assert told.terminated[0] == frames.terminated[0]


def test_outcomes_are_taken_over_by_id(frames: Frames) -> None:
    other = frames.subset([1])
    other = replace(other, rewards=other.rewards + 5, success=~other.success, labelled=~other.labelled)
    changed = frames.with_outcomes(other)
    first, second = (frames.rows([e]) for e in (0, 1))
    np.testing.assert_array_equal(changed.rewards[first], frames.rewards[first])
    np.testing.assert_array_equal(changed.rewards[second], frames.rewards[second] + 5)
    assert (changed.success ^ frames.success).tolist() == [False, True]
    assert (changed.labelled ^ frames.labelled).tolist() == [False, True]
    assert changed.ids == frames.ids
