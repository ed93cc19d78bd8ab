"""Samplers against tiny episodes: where a window ends, what is bootstrapped, and exact resume."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_toys import ROBOT, make_episode

from steer.data import ChunkSampler, EpisodeStore, Frames, TransitionSampler, load_frames
from steer.data.sampling import join_chunks
from steer.errors import ConfigError, SpecError
from steer.observation import Task


@pytest.fixture
def frames(store: EpisodeStore) -> Frames:
    """Frames 0..3: three actions, a true terminal with reward 1. Frames 4..6: two actions, out of time."""
    with store.writer() as writer:
        rewards = np.array([0, 2, 1], np.float32)
        writer.add(make_episode(3, 10, rewards=rewards, terminated=True, truncated=False, success=True))
        writer.add(make_episode(2, 20, success=False))
    store.refresh()
    return load_frames(store)


def candidates(frames: Frames, horizon: int = 4) -> np.ndarray:
    """candidates[f, k, h, a] = f + k / 10 + h / 100."""
    f, k, h, _ = np.indices((len(frames), 3, horizon, 2))
    return (f + k / 10 + h / 100).astype(np.float32)


def random_frames(lengths: list[int], terminated: list[bool]) -> Frames:
    """Frames of random numbers, without a store; the row of a final frame repeats the last action, its reward is 0."""
    rng = np.random.default_rng(sum(lengths))
    starts = np.cumsum(np.add(lengths, 1)) - np.add(lengths, 1)
    total = sum(lengths) + len(lengths)
    actions, rewards = rng.normal(size=(total, 2)).astype(np.float32), rng.normal(size=total).astype(np.float32)
    finals = starts + lengths
    actions[finals], rewards[finals] = actions[finals - 1], 0
    return Frames(
        robot=ROBOT,
        observations={"state": rng.normal(size=(total, 3)).astype(np.float32)},
        actions=actions,
        rewards=rewards,
        starts=starts,
        lengths=np.array(lengths),
        terminated=np.array(terminated),
        success=np.array(terminated),
        labelled=np.ones(len(lengths), np.bool_),
        episode_of=np.repeat(np.arange(len(lengths)), np.add(lengths, 1)),
        tasks=(Task(),) * len(lengths),
        ids=tuple(map(str, range(len(lengths)))),
    )


def test_transitions_at_every_place(frames: Frames) -> None:
    sampler = TransitionSampler(
        frames, prefix=2, gamma=0.5, window=2, batch_size=4, seed=0, candidates=candidates(frames)
    )
    batch = sampler.at(np.array([0, 1, 2, 4, 5]))
    np.testing.assert_array_equal(batch.rewards, [1, 2.5, 1, 0, 0])
    # From 0 the window ends before the end; from 1 and 2 in the terminal; from 4 and 5 where time ran out.
    np.testing.assert_array_equal(batch.bootstrap, [0.25, 0, 0, 0.25, 0.5])
    np.testing.assert_array_equal(batch.mc_returns, [1.25, 2.5, 1, 0, 0])
    np.testing.assert_allclose(batch.actions[:, :, 0], [[0, 0.01], [0.01, 0.02], [0.02, 0.02], [0, 0.01], [0.01, 0.01]])
    assert batch.arrays["state"][:, :, 0].tolist() == [[10, 10], [10, 11], [11, 12], [20, 20], [20, 21]]
    assert batch.mask[:, 0].tolist() == [False, True, True, False, True]
    assert batch.next_arrays["state"][:, :, 0].tolist() == [[11, 12], [12, 13], [12, 13], [21, 22], [21, 22]]
    assert batch.next_mask.all()
    assert batch.candidates.shape == (5, 3, 2, 2)
    np.testing.assert_allclose(batch.candidates[:, 1, 1, 0], np.array([0, 1, 2, 4, 5]) + 0.11)
    np.testing.assert_allclose(batch.next_candidates[:, 2, 0, 1], np.array([2, 3, 3, 6, 6]) + 0.2, rtol=1e-6)
    assert {value.dtype for value in (batch.rewards, batch.bootstrap, batch.mc_returns, batch.actions)} == {
        np.dtype("float32")
    }


def test_a_prefix_longer_than_the_episode(frames: Frames) -> None:
    batch = TransitionSampler(frames, prefix=9, gamma=0.5, window=1, batch_size=1, seed=0).at(np.array([0, 4]))
    np.testing.assert_array_equal(batch.rewards, [1.25, 0])
    np.testing.assert_array_equal(batch.bootstrap, [0, 0.25])
    np.testing.assert_allclose(batch.actions[1, :, 0], [0] + [0.01] * 8)
    assert batch.candidates.shape == (2, 0, 9, 2)


@settings(max_examples=30, deadline=None)
@given(data=st.data(), gamma=st.floats(0, 1), prefix=st.integers(1, 5), window=st.integers(1, 3))
def test_transitions_equal_the_definition(data: st.DataObject, gamma: float, prefix: int, window: int) -> None:
    lengths = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    terminated = data.draw(st.lists(st.booleans(), min_size=len(lengths), max_size=len(lengths)))
    frames = random_frames(lengths, terminated)
    batch = TransitionSampler(frames, prefix, gamma, window, 1, 0).at(frames.decisions)
    row = 0
    for episode, length in enumerate(lengths):
        start = int(frames.starts[episode])
        for t in range(length):
            n = min(prefix, length - t)
            rewards = [float(frames.rewards[start + t + j]) for j in range(length - t)]
            assert batch.rewards[row] == pytest.approx(sum(gamma**j * r for j, r in enumerate(rewards[:n])), abs=1e-5)
            assert batch.mc_returns[row] == pytest.approx(sum(gamma**j * r for j, r in enumerate(rewards)), abs=1e-5)
            done = terminated[episode] and t + n == length
            assert batch.bootstrap[row] == pytest.approx(0 if done else gamma**n, abs=1e-6)
            for j in range(prefix):
                np.testing.assert_array_equal(batch.actions[row, j], frames.actions[start + min(t + j, length - 1)])
            for back in range(window):
                seen = frames.observations["state"][start + max(t + n - back, 0)]
                np.testing.assert_array_equal(batch.next_arrays["state"][row, window - 1 - back], seen)
                assert batch.next_mask[row, window - 1 - back] == (t + n - back >= 0)
            row += 1


def test_every_decision_is_drawn_and_no_final_frame(frames: Frames) -> None:
    sampler = TransitionSampler(frames, prefix=1, gamma=1, window=1, batch_size=500, seed=0)
    assert set(sampler.sample().arrays["state"][:, 0, 0].tolist()) == {10, 11, 12, 20, 21}


def test_chunks_repeat_the_last_action(frames: Frames) -> None:
    sampler = ChunkSampler(frames, horizon=3, window=1, batch_size=200, seed=0)
    batch = sampler.sample()
    chunks = {
        int(s): np.round(a, 2).tolist()
        for s, a in zip(batch.arrays["state"][:, 0, 0], batch.actions[:, :, 0], strict=True)
    }
    expected = {10: [0, 0.01, 0.02], 11: [0.01, 0.02, 0.02], 12: [0.02] * 3, 20: [0, 0.01, 0.01], 21: [0.01] * 3}
    assert chunks.keys() == expected.keys()
    for state, chunk in expected.items():
        np.testing.assert_allclose(chunks[state], chunk, atol=1e-6)
    assert batch.tasks == ()


def test_tasks_follow_their_rows(store: EpisodeStore) -> None:
    with store.writer() as writer:
        writer.add(make_episode(1, 10, task=Task("push"), success=True))
        writer.add(make_episode(1, 20, task=Task("pull"), success=True))
    store.refresh()
    batch = ChunkSampler(load_frames(store), horizon=1, window=1, batch_size=20, seed=0).sample()
    said = {(int(s), task.instruction) for s, task in zip(batch.arrays["state"][:, 0, 0], batch.tasks, strict=True)}
    assert said == {(10, "push"), (20, "pull")}


def test_only_the_wanted_observations_are_read(frames: Frames) -> None:
    seen = replace(frames, observations={**frames.observations, "camera": np.zeros((len(frames), 4), np.uint8)})
    assert ChunkSampler(seen, 2, 1, 8, 0, keys=("camera",)).sample().arrays.keys() == {"camera"}
    batch = TransitionSampler(seen, 2, 0.9, 1, 8, 0, keys=("state",)).sample()
    assert batch.arrays.keys() == batch.next_arrays.keys() == {"state"}


def test_a_restored_sampler_continues_exactly(frames: Frames) -> None:
    for make in (
        lambda seed: ChunkSampler(frames, 2, 1, 8, seed),
        lambda seed: TransitionSampler(frames, 2, 0.9, 1, 8, seed),
    ):
        sampler = make(3)
        sampler.sample()
        state = json.loads(json.dumps(sampler.state()))
        following = [sampler.sample().actions for _ in range(3)]
        again = make(99)
        again.restore(state)
        np.testing.assert_array_equal([again.sample().actions for _ in range(3)], following)


def test_a_state_of_other_data_is_refused(frames: Frames) -> None:
    sampler = ChunkSampler(frames, 2, 1, 8, 0)
    with pytest.raises(ConfigError, match="3 frames, there are 5"):
        sampler.restore(ChunkSampler(frames.subset([0]), 2, 1, 8, 0).state())


def test_settings_and_candidates_that_do_not_fit(frames: Frames) -> None:
    with pytest.raises(SpecError, match=r"expected \(7, K, H >= 5, 2\)"):
        TransitionSampler(frames, 5, 0.9, 1, 8, 0, candidates(frames, horizon=4))
    with pytest.raises(ConfigError, match="gamma"):
        TransitionSampler(frames, 5, 1.1, 1, 8, 0)
    with pytest.raises(ConfigError, match="horizon"):
        ChunkSampler(frames, 0, 1, 8, 0)
    with pytest.raises(ConfigError, match="batch_size"):
        ChunkSampler(frames, 1, 1, 0, 0)


def test_joined_chunks_without_a_task_get_an_empty_one(frames: Frames) -> None:
    named = replace(frames, tasks=(Task("stack"),) * len(frames.lengths))
    without, with_task = (ChunkSampler(part, 2, 1, 2, 0).sample() for part in (frames, named))
    assert join_chunks(without, without).tasks == ()
    assert join_chunks(without, with_task).tasks == (Task(), Task(), Task("stack"), Task("stack"))
    assert join_chunks(with_task, without).tasks == (Task("stack"), Task("stack"), Task(), Task())
    with pytest.raises(SpecError, match="weights"):
        join_chunks(without, replace(without, weights=np.ones(2, np.float32)))
