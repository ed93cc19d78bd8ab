"""What the critic's batches are made of while data grow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from steer.data.frames import Frames, load_frames
from steer.data.sampling import TransitionSampler
from steer.data.store import EpisodeStore
from steer.online.replay import Data, Replay
from steer.spec import Array
from tests.fakes import ROBOT
from tests.online.toys import make_episode


def make(rows: int, frames: Frames, proposals: Array, seed: int) -> TransitionSampler:
    return TransitionSampler(frames, 4, 0.98, 1, rows, seed, proposals)


def data(path: Path, seeds: range, candidates: int, value: float) -> Data:
    """Episodes of a store; every proposal is `value`, so that a batch tells where its rows are from."""
    store = EpisodeStore.create(path, ROBOT, exist_ok=True)
    before = len(store)
    with store.writer() as writer:
        for seed in seeds:
            writer.add(make_episode(seed, success=seed % 2 == 0))
    store.refresh()
    frames = load_frames(store, range(before, len(store)))
    return Data(frames, np.full((len(frames), candidates, 4, 3), value, np.float32))


def test_batches_mix_by_the_share_and_thin_to_the_poorest_candidates(tmp_path: Path) -> None:
    replay = Replay(data(tmp_path / "offline", range(3), 2, 0.01), 0.25)
    replay.grow(data(tmp_path / "online", range(3), 5, 0.02))

    batch = replay.sampler(make, 16, 0).sample()

    assert batch.candidates.shape == (16, 2, 4, 3)
    assert batch.next_candidates[:, 0, 0, 0].tolist() == pytest.approx([0.01] * 4 + [0.02] * 12)


def test_growth_adds_whole_episodes_with_their_returns(tmp_path: Path) -> None:
    replay = Replay(None, 0.0)
    replay.grow(data(tmp_path / "s", range(2), 3, 0.01))
    first = replay.online
    replay.grow(data(tmp_path / "s", range(2, 5), 3, 0.02))

    assert first is not None
    assert replay.online is not None
    frames = replay.online.frames
    assert [frames.ids[:2], len(frames.ids)] == [first.frames.ids, 5]
    assert frames.success.tolist() == [True, False, True, False, True]
    np.testing.assert_array_equal(frames.observations["state"][: len(first.frames)], first.frames.observations["state"])
    # A successful episode of eight steps returns gamma^7 from its first frame, a failed one nothing.
    assert frames.mc_returns(0.98)[frames.starts].tolist() == pytest.approx([0.98**7, 0, 0.98**7, 0, 0.98**7])


def test_a_stream_goes_on_from_its_saved_position(tmp_path: Path) -> None:
    replay = Replay(data(tmp_path / "offline", range(3), 2, 0.01), 0.5)
    replay.grow(data(tmp_path / "online", range(4), 5, 0.02))
    stream = replay.sampler(make, 8, 7)
    stream.sample()
    kept = stream.state()
    expected = [stream.sample() for _ in range(5)]

    again = replay.sampler(make, 8, 99)
    again.restore(kept)

    for batch in expected:
        np.testing.assert_array_equal(again.sample().actions, batch.actions)


def test_offline_data_that_no_batch_uses_is_let_go(tmp_path: Path) -> None:
    assert Replay(data(tmp_path / "offline", range(2), 2, 0.01), 0.0).offline is None
