"""What the policy is fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from steer import registry
from steer.data.frames import load_frames
from steer.data.sampling import ChunkSampler
from steer.data.store import EpisodeStore
from steer.observation import Batch
from steer.online.config import Improve, OnlineConfig
from steer.online.improve import better_chunks, imitable, policy_sampler
from steer.online.replay import Data, Replay
from steer.spec import Array
from tests.fakes import ROBOT, FakeCritic
from tests.online.toys import make_episode


@pytest.fixture
def online(tmp_path: Path) -> Data:
    store = EpisodeStore.create(tmp_path / "s", ROBOT)
    with store.writer() as writer:
        for seed in range(6):
            writer.add(make_episode(seed, success=seed % 3 == 0))
    store.refresh()
    frames = load_frames(store)
    rng = np.random.default_rng(0)
    return Data(frames, rng.uniform(-0.1, 0.1, (len(frames), 5, 4, 3)).astype(np.float32))


def chunks(rows: int, frames: object, seed: int) -> ChunkSampler:
    return ChunkSampler(frames, 4, 1, rows, seed)  # type: ignore[arg-type]  # Frames


def replay(online: Data, offline: Data | None = None) -> Replay:
    made = Replay(offline, 0.5)
    made.grow(online)
    return made


def q(critic: object, data: Data, index: Array, actions: Array) -> Array:
    arrays, mask = data.frames.window(index, 1)
    values: Array = critic.score(critic.encode(Batch(arrays, mask)), actions).mean(0)  # type: ignore[attr-defined]  # a Critic
    return values


def test_a_better_chunk_is_never_worse_than_the_best_proposal_or_what_was_done(models: Path, online: Data) -> None:
    critic = registry.critic(str(models / "critic"))
    refiner = registry.refiner("gradient:?steps=3&step_size=0.05", critic)
    index = online.frames.decisions

    better = better_chunks(online, index, critic, refiner)

    found = q(critic, online, index, better[:, None])[:, 0]
    rows = np.minimum(index[:, None] + np.arange(4), online.frames.finals[online.frames.episode_of[index]][:, None])
    assert (found >= q(critic, online, index, online.proposals[index]).max(1) - 1e-6).all()
    assert (found >= q(critic, online, index, online.frames.actions[rows][:, None])[:, 0] - 1e-6).all()
    assert (found > q(critic, online, index, online.proposals[index]).max(1) + 1e-6).any()
    assert (np.abs(better) <= 0.1 + 1e-6).all()


def test_without_a_refiner_it_is_one_of_the_proposals_or_what_was_done(online: Data) -> None:
    index = online.frames.decisions
    better = better_chunks(online, index, FakeCritic(), None)
    rows = np.minimum(index[:, None] + np.arange(4), online.frames.finals[online.frames.episode_of[index]][:, None])
    known = np.concatenate([online.proposals[index], online.frames.actions[rows][:, None]], axis=1)
    assert (np.abs(known - better[:, None]).max((2, 3)) == 0).any(1).all()


def test_only_successful_episodes_are_imitated(online: Data) -> None:
    sampler = policy_sampler(OnlineConfig(), 64, replay(online), FakeCritic(), None, chunks, 0)
    assert sampler is not None
    # Successful toys step by +0.05, failed ones by -0.05.
    assert (sampler.sample().actions == np.float32(0.05)).all()


def test_both_share_a_batch(online: Data) -> None:
    config = OnlineConfig(improve="both")
    sampler = policy_sampler(config, 9, replay(online), FakeCritic(), None, chunks, 0)
    assert sampler is not None
    batch = sampler.sample()
    assert batch.actions.shape == (9, 4, 3)
    assert (batch.actions[:5] == np.float32(0.05)).all()
    kept = sampler.state()
    expected = sampler.sample().actions
    sampler.restore(kept)
    np.testing.assert_array_equal(sampler.sample().actions, expected)


@pytest.mark.parametrize(("improve", "learns"), [("success", False), ("both", True), ("pa-rl", True)])
def test_before_the_first_success_there_is_nothing_to_imitate(
    tmp_path: Path, online: Data, improve: Improve, learns: bool
) -> None:
    failed = Data(online.frames.subset([1, 2]), online.proposals[online.frames.rows([1, 2])])
    config = OnlineConfig(improve=improve)
    sampler = policy_sampler(config, 8, replay(failed), FakeCritic(), None, chunks, 0)
    assert (sampler is not None) == learns
    assert sampler is None or len(sampler.sample().actions) == 8


def test_targets_are_found_for_so_many_states_at_most(online: Data) -> None:
    config = OnlineConfig(improve="pa-rl", target_states=3)
    sampler = policy_sampler(config, 64, replay(online), FakeCritic(), None, chunks, 0)
    assert sampler is not None
    assert len(np.unique(sampler.sample().actions.reshape(64, -1), axis=0)) <= 3


def flagged(online: Data, name: str, rows: Sequence[int]) -> Data:
    flag = np.zeros(len(online.frames), np.bool_)
    flag[list(rows)] = True
    return Data(replace(online.frames, flags={**online.frames.flags, name: flag}), online.proposals)


def test_a_persons_chunks_are_imitated_in_failed_episodes_too_and_weigh_more(online: Data) -> None:
    # Episodes of 8 steps: 0 succeeded (frames 0-8), 1 failed (frames 9-17). A person acts in 4 steps of each.
    data = flagged(online, "intervention", [2, 3, 4, 5, *range(12, 16)])
    index, weights = imitable(data.frames, 4, 3.0)
    assert weights is not None
    assert index.tolist() == [*range(8), 12, *range(27, 35)]
    assert index[weights == 3.0].tolist() == [2, 12]
    assert set(weights.tolist()) == {1.0, 3.0}

    config = OnlineConfig(intervention_weight=3.0, improve="both")
    sampler = policy_sampler(config, 256, replay(data), FakeCritic(), None, chunks, 0)
    assert sampler is not None
    batch = sampler.sample()
    assert batch.weights is not None
    assert batch.weights.shape == (256,)
    # Failed toys step by -0.05: among what is imitated only the person's.
    assert set(batch.weights[:128][(batch.actions[:128] < 0).all((1, 2))]) == {np.float32(3)}
    assert (batch.weights[128:] == 1).all()


def test_a_weight_of_zero_leaves_a_persons_chunks_out(online: Data) -> None:
    data = flagged(online, "intervention", range(0, 18))
    index, _ = imitable(data.frames, 4, 0.0)
    assert index.tolist() == list(range(27, 35))


def test_a_held_step_is_nobodys_action(online: Data) -> None:
    data = flagged(online, "held", [3])
    index, weights = imitable(data.frames, 4, 2.0)
    assert weights is None
    assert index.tolist() == [*range(4, 8), *range(27, 35)]

    # The one chunk that the critic would like best holds such a step.
    actions, proposals = data.frames.actions.copy(), np.full_like(data.proposals, -0.1)
    actions[:8] = np.array([0.05, -0.02, 0.01], np.float32) / 4
    data = Data(replace(data.frames, actions=actions), proposals)
    rows = np.array([0, 4])
    better = better_chunks(data, rows, FakeCritic(), None)
    assert (better[0] == np.float32(-0.1)).all()
    np.testing.assert_array_equal(better[1], actions[4:8])


def test_without_interventions_the_stream_is_that_of_the_successful_episodes(online: Data) -> None:
    sampler = policy_sampler(OnlineConfig(), 32, replay(online), FakeCritic(), None, chunks, 5)
    assert sampler is not None
    batch, plain = sampler.sample(), chunks(32, online.frames.subset([0, 3]), 5).sample()
    assert batch.weights is None
    np.testing.assert_array_equal(batch.arrays["state"], plain.arrays["state"])


def elsewhere(online: Data, success: bool) -> Data:
    """Episodes whose steps tell that they are offline ones."""
    frames = online.frames
    actions, outcomes = np.full_like(frames.actions, 0.02), np.full_like(frames.success, success)
    return Data(replace(frames, actions=actions, success=outcomes), online.proposals)


@pytest.mark.parametrize(
    ("enough", "offline_succeeded", "rehearsed"), [(64, True, 47), (16, True, 0), (0, True, 0), (64, False, 0)]
)
def test_where_few_chunks_are_known_offline_successes_are_rehearsed(
    online: Data, enough: int, offline_succeeded: bool, rehearsed: int
) -> None:
    # 16 chunks of successful episodes.
    both = replay(online, elsewhere(online, offline_succeeded))
    sampler = policy_sampler(OnlineConfig(rehearse_below=enough), 64, both, FakeCritic(), None, chunks, 0)
    assert sampler is not None
    actions = sampler.sample().actions
    assert (actions == np.float32(0.02)).all((1, 2)).sum() == rehearsed
    assert (actions == np.float32(0.05)).all((1, 2)).sum() == 64 - rehearsed
    kept = sampler.state()
    expected = sampler.sample().actions
    sampler.restore(kept)
    np.testing.assert_array_equal(sampler.sample().actions, expected)


def test_a_persons_weight_goes_with_rehearsed_chunks_too(online: Data) -> None:
    corrected = flagged(online, "intervention", [2, 3, 4, 5])
    config = OnlineConfig(rehearse_below=64, improve="both")
    sampler = policy_sampler(config, 64, replay(corrected, elsewhere(online, True)), FakeCritic(), None, chunks, 0)
    assert sampler is not None
    assert set(sampler.sample().weights.tolist()) == {1.0, 2.0}


def test_what_never_succeeded_online_is_not_made_up_for_offline(online: Data) -> None:
    failed = Data(online.frames.subset([1, 2]), online.proposals[online.frames.rows([1, 2])])
    both = replay(failed, elsewhere(online, True))
    assert policy_sampler(OnlineConfig(), 64, both, FakeCritic(), None, chunks, 0) is None
