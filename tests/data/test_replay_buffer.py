"""Diffusion Policy's zarr v2 buffers, opened as they are."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from steer.data import EpisodeStore, load_frames
from steer.errors import SpecError, StoreError

ENDS = np.array([2, 5])
DATA: dict[str, np.ndarray[Any, Any]] = {
    "state": np.arange(10, dtype=np.float32).reshape(5, 2),
    "keypoint": np.arange(20, dtype=np.float32).reshape(5, 2, 2),
    "speed": np.arange(5, dtype=np.float64),
    "img": np.full((5, 4, 4, 3), 200.0, np.float32),
    "action": np.array([[0, 5], [1, 5], [2, 5], [3, 5], [4, 5]], np.float32),
}


def write_buffer(path: Path, data: dict[str, np.ndarray[Any, Any]], ends: np.ndarray[Any, Any] = ENDS) -> Path:
    root = zarr.open_group(path, mode="w", zarr_format=2)
    for key, value in data.items():
        root.create_array(f"data/{key}", data=value, chunks=(2, *value.shape[1:]))
    root.create_array("meta/episode_ends", data=ends)
    return path


@pytest.fixture
def buffer(tmp_path: Path) -> Path:
    return write_buffer(tmp_path / "pusht.zarr", DATA)


def test_episodes_keys_and_dtypes(buffer: Path) -> None:
    store = EpisodeStore.open(buffer)
    assert [record.length for record in store.records()] == [2, 3]
    episode = store.episode(1)
    np.testing.assert_array_equal(episode.actions, [[2, 5], [3, 5], [4, 5]])
    np.testing.assert_array_equal(episode.observations["state"], [[4, 5], [6, 7], [8, 9], [8, 9]])
    np.testing.assert_array_equal(
        episode.observations["speed"], np.array([[2], [3], [4], [4]], np.float32), strict=True
    )
    assert episode.observations["keypoint"].shape == (4, 2, 2)
    assert (episode.observations["img"].dtype, int(episode.observations["img"].max())) == (np.uint8, 200)
    assert (episode.success, episode.terminated, episode.truncated) == (None, False, True)
    assert episode.rewards.tolist() == [0, 0, 0]


def test_the_robot_is_drafted_and_matches_nothing_silently(buffer: Path) -> None:
    action = EpisodeStore.open(buffer).robot.action
    assert (action.low.tolist(), action.high.tolist()) == ([0, 5], [4, 6])
    assert (action.kind, action.frame, action.gripper) == ("unknown",) * 3
    assert action.differences(action)


def test_frames_come_from_it(buffer: Path) -> None:
    frames = load_frames(EpisodeStore.open(buffer))
    assert len(frames) == 7
    assert frames.labelled.tolist() == [False, False]
    assert frames.observations["state"][:, 0].tolist() == [0, 2, 2, 4, 6, 8, 8]


@pytest.mark.parametrize(("image", "expected"), [(np.float32(0.5), 128), (np.uint8(77), 77)])
def test_images_become_bytes(tmp_path: Path, image: Any, expected: int) -> None:
    data = {"img": np.full((5, 4, 4, 3), image), "action": DATA["action"]}
    store = EpisodeStore.open(write_buffer(tmp_path / "b.zarr", data))
    value = store.episode(0).observations["img"]
    assert value.dtype == np.uint8
    assert set(np.unique(value)) == {expected}


@pytest.mark.parametrize("prefix", ["", "pusht.zarr/"])
def test_a_zip_is_read_as_it_is(buffer: Path, tmp_path: Path, prefix: str) -> None:
    path = tmp_path / "pusht.zarr.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(p for p in buffer.rglob("*") if p.is_file()):
            archive.write(file, prefix + str(file.relative_to(buffer)))
    zipped, plain = EpisodeStore.open(path), EpisodeStore.open(buffer)
    np.testing.assert_array_equal(zipped.episode(1).observations["keypoint"], plain.episode(1).observations["keypoint"])
    assert len(zipped) == 2


def test_it_is_read_only(buffer: Path) -> None:
    store = EpisodeStore.open(buffer)
    with pytest.raises(StoreError, match="read-only"):
        store.writer()
    with pytest.raises(StoreError, match="read-only"):
        store.label(store.records()[0].id, True, "key")
    assert store.refresh() == 0


def test_damage_is_explained(tmp_path: Path, buffer: Path) -> None:
    without = {"state": DATA["state"]}
    with pytest.raises(StoreError, match="data/action is missing"):
        EpisodeStore.open(write_buffer(tmp_path / "a.zarr", without))
    with pytest.raises(StoreError, match="says 9 rows"):
        EpisodeStore.open(write_buffer(tmp_path / "b.zarr", DATA, np.array([2, 9])))
    with pytest.raises(StoreError, match="does not increase"):
        EpisodeStore.open(write_buffer(tmp_path / "c.zarr", DATA, np.array([2, 2, 5])))
    (tmp_path / "torn.zarr.zip").write_bytes(b"PK")
    with pytest.raises(StoreError, match="not a zip"):
        EpisodeStore.open(tmp_path / "torn.zarr.zip")
    chunk = buffer / "data" / "state" / "0.0"
    chunk.write_bytes(chunk.read_bytes()[:3])
    with pytest.raises(StoreError, match="cannot be read"):
        EpisodeStore.open(buffer).episode(0)


def test_a_robot_that_lists_other_keys_is_refused(buffer: Path, tmp_path: Path) -> None:
    robot = EpisodeStore.open(
        write_buffer(tmp_path / "d.zarr", {"gaze": DATA["state"], "action": DATA["action"]})
    ).robot
    with pytest.raises(SpecError, match="gaze"):
        EpisodeStore.open(buffer, robot=robot)
