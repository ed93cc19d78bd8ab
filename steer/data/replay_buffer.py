"""Diffusion Policy's replay buffer (zarr v2), read as a segment of episodes. Read-only.

    data/<key>          [rows, ...]   `action` becomes actions; every other key an observation (state, obs, img, keypoint)
    meta/episode_ends   int64[episodes]

The format keeps neither the observation after the last action (the last one is repeated, the episode truncated), nor
rewards (zeros), nor success (None), nor what the action means (kind, frame and gripper "unknown", bounds from the data).
Format: https://github.com/real-stanford/diffusion_policy, class ReplayBuffer.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import ZipStore

from steer.action import UNKNOWN
from steer.data.episode import Episode, EpisodeRecord
from steer.data.segment import READ_ERRORS, WHOLE_BYTES
from steer.draft import draft_robot
from steer.errors import SpecError, StoreError
from steer.robot import RobotSpec
from steer.spec import Array, ArraySpec

# The buffer does not say its rate; Push-T, the format's first data set, was recorded at this one.
ASSUMED_RATE_HZ = 10.0


def is_replay_buffer(path: Path) -> bool:
    """Does `path` look like one? Looks only at names."""
    return path.name.endswith(".zarr.zip") or ((path / "data").is_dir() and (path / "meta" / "episode_ends").is_dir())


class ReplayBuffer:
    """The whole buffer as one segment."""

    def __init__(self, path: Path, robot: RobotSpec | None = None) -> None:
        """robot: what the buffer does not say; drafted from the data when None."""
        self.path = path
        try:
            root = _open_root(path)
            self._ends = np.asarray(_array(root, "meta/episode_ends")[...], np.int64)
            data = root["data"]
            if not isinstance(data, zarr.Group) or "action" not in data:
                raise ValueError("data/action is missing")
            self._arrays = {key: _array(data, key) for key in sorted(data.array_keys())}
            self._scales = {key: _image_scale(array) for key, array in self._arrays.items()}
            self._check_lengths()
            actions = np.asarray(self._arrays["action"][...], np.float32)
            # Named by its content: candidates sampled for another buffer at this path must not be taken for its own.
            self.name = "buffer-" + hashlib.blake2b(self._ends.tobytes() + actions.tobytes(), digest_size=6).hexdigest()
            self.robot = robot or self._draft(actions)
        except (*READ_ERRORS, zipfile.BadZipFile) as error:
            raise self._broken(error) from error
        self._check_keys()
        self.records = tuple(
            EpisodeRecord(f"{self.name}/{i}", int(length), None, "", UNKNOWN, terminated=False, truncated=True)
            for i, length in enumerate(np.diff(self._ends, prepend=0))
        )

    def episodes(self, indices: Sequence[int] | None = None) -> Iterator[Episode]:
        """The episodes at these places (all by default)."""
        chosen = range(len(self.records)) if indices is None else indices
        try:
            whole = len(chosen) > 1
            arrays: dict[str, Any] = {
                k: a[...] if whole and a.nbytes <= WHOLE_BYTES else a for k, a in self._arrays.items()
            }
            for index in chosen:
                yield self._episode(arrays, index)
        except READ_ERRORS as error:
            raise self._broken(error) from error

    def _episode(self, arrays: dict[str, Any], index: int) -> Episode:
        end = int(self._ends[index])
        rows = slice(end - self.records[index].length, end)
        observations = {}
        for key in self.robot.observation.keys:
            value = self._convert(key, np.asarray(arrays[key][rows]))
            observations[key] = np.concatenate([value, value[-1:]])
        actions = np.ascontiguousarray(arrays["action"][rows], np.float32)
        rewards = np.zeros(len(actions), np.float32)
        return Episode(observations, actions, rewards, terminated=False, truncated=True, source=UNKNOWN)

    def _convert(self, key: str, value: Array) -> Array:
        """To the vocabulary's dtypes: images uint8, other floats float32, a bare number a vector of one entry."""
        scale = self._scales[key]
        if scale is not None:
            return np.clip(np.rint(value * scale), 0, 255).astype(np.uint8)
        if value.dtype.kind == "f":
            value = value.astype(np.float32)
        return value[:, None] if value.ndim == 1 else value

    def _draft(self, actions: Array) -> RobotSpec:
        bounds = np.stack([actions.min(axis=0), actions.max(axis=0)])
        frames = {key: self._convert(key, np.asarray(a[:1])) for key, a in self._arrays.items() if key != "action"}
        arrays = [ArraySpec(key, str(value.dtype), value.shape[1:]) for key, value in frames.items()]
        return draft_robot(self.path.name, bounds, arrays, ASSUMED_RATE_HZ)

    def _check_lengths(self) -> None:
        rows = int(self._ends[-1]) if len(self._ends) else 0
        if len(self._ends) and (np.diff(self._ends, prepend=0) < 1).any():
            raise ValueError("episode_ends does not increase")
        short = {key: array.shape[0] for key, array in self._arrays.items() if array.shape[0] < rows}
        if short:
            raise ValueError(f"episode_ends says {rows} rows, but {short}")

    def _check_keys(self) -> None:
        missing = [key for key in self.robot.observation.keys if key not in self._arrays]
        if missing:
            raise SpecError(f"{self.path} has no {missing}, which the robot spec lists; it has {sorted(self._arrays)}")

    def _broken(self, error: Exception) -> StoreError:
        return StoreError(
            f"replay buffer {self.path} cannot be read ({type(error).__name__}: {error}): check or copy it again"
        )


def _open_root(path: Path) -> zarr.Group:
    """The group with `data` and `meta`; in a zip it may lie in a folder, which zarr does not look for."""
    if path.is_dir():
        return zarr.open_group(path, mode="r", zarr_format=2)
    end = "meta/episode_ends/.zarray"
    with zipfile.ZipFile(path) as archive:
        found = [name for name in archive.namelist() if name == end or name.endswith(f"/{end}")]
    if len(found) != 1:
        raise ValueError(f"{len(found)} entries called {end}, expected 1")
    return zarr.open_group(
        ZipStore(path, mode="r"), mode="r", zarr_format=2, path=found[0].removesuffix(end).rstrip("/")
    )


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    node = group[name]
    if not isinstance(node, zarr.Array):
        raise ValueError(f"{name} is not an array")
    return node


def _image_scale(array: zarr.Array[Any]) -> float | None:
    """What turns a float image into 0..255, or None for an array that needs nothing."""
    if array.ndim != 4 or array.shape[-1] not in (1, 3) or array.dtype.kind != "f" or not array.shape[0]:
        return None
    return 255.0 if float(np.max(np.asarray(array[: min(16, array.shape[0])]))) <= 1.0 else 1.0
