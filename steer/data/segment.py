"""A segment: some episodes in one immutable zarr v3 group. Written once, into a folder nobody reads yet; then only read.

    observations/<key>   [sum(N + 1), ...]     goal_images/<i>   uint8[h, w, 3] of episode i, where its task has one
    actions, rewards     [sum(N), ...]         episode_ends      int64[episodes], ends in actions
    steps/<name>         [sum(N), ...]         attributes        format, episodes: one JSON object each
    manifest.json        relative path -> size in bytes of every file of the group

The manifest exists because zarr reads a lost chunk as zeros. Chunks carry zstd's checksum, so that changed bytes are
noticed too. Publishing is the writer's business (`steer.data.writer`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from steer.data.episode import Episode, EpisodeRecord
from steer.errors import StoreError
from steer.observation import Task
from steer.spec import Array

FORMAT = 1
MANIFEST = "manifest.json"
# Measured: vector arrays of a segment are one chunk each, images 128 x 128 some 80 to a chunk. At 1 MiB syncing the files costs
# three times as much, at 16 MiB reading one episode a quarter more.
CHUNK_BYTES = 4 << 20
# Arrays up to this size are decoded once when several episodes are read; larger ones are sliced episode by episode.
WHOLE_BYTES = 64 << 20
# What zarr and its codecs raise for files that are damaged or gone.
READ_ERRORS = (OSError, ValueError, RuntimeError, KeyError, TypeError, IndexError)


def write_segment(folder: Path, episodes: Sequence[Episode]) -> None:
    """Write checked episodes of one layout into a new folder. Raises OSError as it comes."""
    group = zarr.create_group(folder, zarr_format=3)
    for key in episodes[0].observations:
        _write_array(group, f"observations/{key}", np.concatenate([e.observations[key] for e in episodes]))
    for name in episodes[0].steps:
        _write_array(group, f"steps/{name}", np.concatenate([e.steps[name] for e in episodes]))
    _write_array(group, "actions", np.concatenate([e.actions for e in episodes]))
    _write_array(group, "rewards", np.concatenate([e.rewards for e in episodes]))
    _write_array(group, "episode_ends", np.cumsum([len(e) for e in episodes], dtype=np.int64))
    for index, episode in enumerate(episodes):
        if episode.task.goal_image is not None:
            _write_array(group, f"goal_images/{index}", episode.task.goal_image)
    group.attrs.update({"format": FORMAT, "episodes": [_attributes(e) for e in episodes]})
    sizes = {str(p.relative_to(folder)): p.stat().st_size for p in sorted(folder.rglob("*")) if p.is_file()}
    (folder / MANIFEST).write_text(json.dumps(sizes, indent=0))


def _write_array(group: zarr.Group, name: str, value: Array) -> None:
    row_bytes = max(1, value[:1].nbytes)
    rows = max(1, min(len(value), CHUNK_BYTES // row_bytes))
    codec = ZstdCodec(level=1, checksum=True)
    array = group.create_array(
        name,
        shape=value.shape,
        dtype=value.dtype,
        chunks=(rows, *(max(1, n) for n in value.shape[1:])),
        compressors=codec,
    )
    array[...] = value


def _attributes(episode: Episode) -> dict[str, Any]:
    return {
        "terminated": episode.terminated,
        "truncated": episode.truncated,
        "success": episode.success,
        "success_source": episode.success_source,
        "instruction": episode.task.instruction,
        "goal_image": episode.task.goal_image is not None,
        "source": episode.source,
        "info": dict(episode.info),
    }


class Segment:
    """A published segment, opened: its name, its records, and its episodes on request."""

    def __init__(self, path: Path) -> None:
        """Raises `StoreError` for a segment that is incomplete or changed."""
        self.path = path
        self.name = path.name
        try:
            self._arrays = _check_manifest(path)
            self._group = zarr.open_group(path, mode="r", zarr_format=3)
            self._check_format()
            self._ends = np.asarray(self._array("episode_ends")[...], np.int64)
            self._attributes: Any = self._group.attrs["episodes"]
            self.records = self._records()
        except READ_ERRORS as error:
            raise self._broken(error) from error

    def episodes(self, indices: Sequence[int] | None = None) -> Iterator[Episode]:
        """The episodes at these places in the segment (all by default), each array opened once."""
        chosen = range(len(self.records)) if indices is None else indices
        try:
            arrays = self._open_arrays(whole=len(chosen) > 1)
            for index in chosen:
                yield self._episode(arrays, index)
        except READ_ERRORS as error:
            raise self._broken(error) from error

    def verify(self) -> None:
        """Decode everything once; raises `StoreError` where that fails."""
        for _ in self.episodes():
            pass

    def _check_format(self) -> None:
        found = self._group.attrs.get("format")
        if found != FORMAT:
            raise StoreError(f"segment {self.path} has format {found}, this version reads {FORMAT}: upgrade steer")

    def _array(self, name: str) -> zarr.Array[Any]:
        node = self._group[name]
        if not isinstance(node, zarr.Array):
            raise ValueError(f"{name} is not an array")
        return node

    def _open_arrays(self, whole: bool) -> dict[str, Any]:
        """Name -> array of every per-frame and per-step array; decoded where small and asked for."""
        # From the manifest: asking zarr what a group holds costs more than opening it.
        names = [n for n in self._arrays if n in ("actions", "rewards") or n.startswith(("observations/", "steps/"))]
        arrays = {name: self._array(name) for name in names}
        return {name: a[...] if whole and a.nbytes <= WHOLE_BYTES else a for name, a in arrays.items()}

    def _episode(self, arrays: dict[str, Any], index: int) -> Episode:
        record = self.records[index]
        end = int(self._ends[index])
        steps = slice(end - record.length, end)
        # Every earlier episode has one more frame than it has steps.
        frames = slice(steps.start + index, steps.stop + index + 1)
        read = {name: np.array(a[frames if name.startswith("observations/") else steps]) for name, a in arrays.items()}
        return Episode(
            observations={n.removeprefix("observations/"): v for n, v in read.items() if n.startswith("observations/")},
            actions=read["actions"],
            rewards=read["rewards"],
            terminated=record.terminated,
            truncated=record.truncated,
            success=record.success,
            success_source=record.success_source,
            task=self._task(index),
            source=record.source,
            steps={n.removeprefix("steps/"): v for n, v in read.items() if n.startswith("steps/")},
            info=record.info,
        )

    def _task(self, index: int) -> Task:
        shown = self._attributes[index]["goal_image"]
        image = np.asarray(self._array(f"goal_images/{index}")[...], np.uint8) if shown else None
        return Task(self.records[index].task.instruction, image)

    def _records(self) -> tuple[EpisodeRecord, ...]:
        lengths = np.diff(self._ends, prepend=0)
        if len(self._attributes) != len(lengths):
            raise ValueError(f"{len(lengths)} episodes, but attributes of {len(self._attributes)}")
        return tuple(
            EpisodeRecord(
                id=f"{self.name}/{index}",
                length=int(length),
                success=entry["success"],
                success_source=entry["success_source"],
                source=entry["source"],
                terminated=entry["terminated"],
                truncated=entry["truncated"],
                task=Task(entry["instruction"]),
                info=entry["info"],
            )
            for index, (length, entry) in enumerate(zip(lengths, self._attributes, strict=True))
        )

    def _broken(self, error: Exception) -> StoreError:
        return StoreError(
            f"segment {self.path} is damaged ({type(error).__name__}: {error}): restore it from a copy, "
            "or open the store with skip_broken=True to go on without its episodes"
        )


def _check_manifest(path: Path) -> list[str]:
    """Every file there, none shorter or longer than written? Returns the names of groups and arrays."""
    sizes: dict[str, int] = json.loads((path / MANIFEST).read_text())
    for name, size in sizes.items():
        found = (path / name).stat().st_size
        if found != size:
            raise ValueError(f"{name} has {found} bytes, {size} were written")
    return [name.removesuffix("/zarr.json") for name in sizes if name.endswith("/zarr.json")]
