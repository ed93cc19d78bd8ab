"""Frames that grow: what was there stays, in memory and in a file, and is not copied each time."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from steer.data.frames import Frames, join_frames, load_frames
from steer.data.growing import GrowingArray, GrowingFrames
from steer.data.store import EpisodeStore
from steer.errors import SpecError
from tests.fakes import ROBOT
from tests.online.toys import make_episode


def frames_of(path: Path, *seeds: int) -> Frames:
    store = EpisodeStore.create(path, ROBOT)
    with store.writer() as writer:
        for seed in seeds:
            writer.add(make_episode(seed, success=seed % 2 == 0, length=5 + seed))
    store.refresh()
    return load_frames(store)


@pytest.mark.parametrize("limit", [1 << 20, 300, 0])
def test_rows_come_back_in_order_and_what_was_handed_out_stays(limit: int) -> None:
    growing = GrowingArray((3,), np.float32, limit)
    parts = [np.full((n, 3), n, np.float32) for n in (2, 0, 5, 1, 30)]
    before = []
    for end, part in enumerate(parts, 1):
        rows = growing.append(part)
        np.testing.assert_array_equal(rows, np.concatenate(parts[:end]))
        before.append((rows, rows.copy()))
    for rows, copy in before:
        np.testing.assert_array_equal(rows, copy)
    assert isinstance(rows, np.memmap) == (limit < 38 * 12)


@pytest.mark.parametrize("limit", [1 << 20, 0])
def test_appending_copies_little(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    growing, made = GrowingArray((2,), np.float32, limit), []
    make_room = GrowingArray._make_room

    def counted(self: GrowingArray, filled: int) -> None:
        made.append(filled)
        make_room(self, filled)

    monkeypatch.setattr(GrowingArray, "_make_room", counted)
    for _ in range(1000):
        growing.append(np.zeros((1, 2), np.float32))
    assert len(made) <= 10
    assert sum(made) <= 2000


def test_a_mapped_array_takes_space_for_what_was_written() -> None:
    growing = GrowingArray((1024,), np.uint8, 0)
    for _ in range(40):
        growing.append(np.ones((25, 1024), np.uint8))
    assert growing._file is not None
    status = os.fstat(growing._file.fileno())
    assert status.st_size >= 1000 * 1024
    assert status.st_blocks * 512 < 1.2 * 1000 * 1024


def test_other_rows_are_refused() -> None:
    growing = GrowingArray((3,), np.float32)
    for wrong in (np.zeros((2, 4), np.float32), np.zeros((2, 3), np.float64)):
        with pytest.raises(SpecError, match="cannot follow those of float32"):
            growing.append(wrong)


@pytest.mark.parametrize("limit", [1 << 20, 0])
def test_growing_frames_are_joined_frames(tmp_path: Path, limit: int) -> None:
    parts = [frames_of(tmp_path / str(n), n, n + 1) for n in range(4)]
    parts[2] = replace(parts[2], flags={"held": np.arange(len(parts[2])) % 2 == 0})
    growing = GrowingFrames(limit)
    for part in parts:
        frames = growing.append(part)
    expected = join_frames(parts)
    for name in ("actions", "rewards", "starts", "lengths", "terminated", "success", "episode_of"):
        np.testing.assert_array_equal(getattr(frames, name), getattr(expected, name))
    np.testing.assert_array_equal(frames.observations["state"], expected.observations["state"])
    np.testing.assert_array_equal(frames.flag("held"), expected.flag("held"))
    assert frames.flag("held").sum() == parts[2].flag("held").sum() > 0
    assert not frames.flag("intervention").any()
    assert frames.ids == expected.ids


def test_another_robots_frames_are_refused(tmp_path: Path) -> None:
    growing = GrowingFrames()
    frames = frames_of(tmp_path / "s", 1)
    growing.append(frames)
    with pytest.raises(SpecError, match="differ in their robot"):
        growing.append(replace(frames, robot=replace(ROBOT, name="another arm")))
