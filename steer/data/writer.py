"""`EpisodeWriter`: buffers whole episodes and publishes them as segments, each by one rename.

Several writers never meet: each holds a numbered slot by a lock that the kernel frees when the process dies, and a
segment's name carries the slot. Who holds a slot's lock may remove what a dead writer of that slot left behind.
A single writer always gets slot 0, so its segment names, and hence the order of training data, are reproducible.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any

from steer.data.episode import Episode, check_episode
from steer.data.segment import write_segment
from steer.errors import SpecError, StoreError
from steer.files import fsync_tree, publish_folder
from steer.robot import RobotSpec

logger = logging.getLogger(__name__)

ASIDE = ".writing-"
# A segment of images is published when it holds this much, so that neither memory nor a segment grows without bound.
SEGMENT_BYTES = 256 << 20
_SEGMENT = re.compile(r"\d{6,}-\d{3}")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class EpisodeWriter:
    """Adds episodes to a store, in segments of `episodes_per_segment` or `SEGMENT_BYTES`.

    A context manager: leaving it publishes what is buffered, also after an error.

    An episode is safe once `flush` (or an `add` that filled a segment) has returned; before that it is in memory only.
    """

    def __init__(self, root: Path, robot: RobotSpec, episodes_per_segment: int = 50) -> None:
        if episodes_per_segment < 1:
            raise SpecError(f"episodes_per_segment is {episodes_per_segment}, expected 1 or more")
        self.robot = robot
        self.episodes_per_segment = episodes_per_segment
        self.acknowledged: list[str] = []
        """Ids of every episode this writer has published, in order."""
        self._root = root
        self._segments = root / "segments"
        self._buffer: list[Episode] = []
        self._layout: dict[str, Any] | None = None
        self._slot, self._lock = claim_slot(root)

    def __enter__(self) -> EpisodeWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def buffered(self) -> int:
        """Episodes in memory that are not published yet."""
        return len(self._buffer)

    def add(self, episode: Episode) -> None:
        """Take an episode; publishes when a segment is full. Its arrays are not copied: leave them alone until then.

        Raises `SpecError` for one that does not fit (nothing buffered is touched), `StoreError` when publishing fails
        (the episode is kept, like all others in the buffer).
        """
        if self._lock < 0:
            raise StoreError("this writer is closed: ask the store for a new one")
        check_episode(episode, self.robot)
        layout = _layout(episode)
        if self._layout is None:
            self._layout = layout
        if layout != self._layout:
            names = sorted(n for n in layout.keys() | self._layout.keys() if layout.get(n) != self._layout.get(n))
            raise SpecError(
                f"arrays {names} differ from the writer's first episode: got {[layout.get(n) for n in names]}, expected "
                f"{[self._layout.get(n) for n in names]}: keep dtypes and shapes, or use another writer"
            )
        self._buffer.append(episode)
        if len(self._buffer) >= self.episodes_per_segment or sum(map(_size, self._buffer)) >= SEGMENT_BYTES:
            self.flush()

    def flush(self) -> tuple[str, ...]:
        """Publish what is buffered as one segment; returns its episode ids, now safe on the disk.

        Raises `StoreError` when the disk is full or fails; the buffer is kept, so that `flush` can be called again.
        """
        if not self._buffer:
            return ()
        aside = self._segments / f"{ASIDE}{self._slot:03d}"
        try:
            shutil.rmtree(aside, ignore_errors=True)
            write_segment(aside, self._buffer)
            fsync_tree(aside)
            name = self._next_name()
            self._publish(aside, self._segments / name)
        except OSError as error:
            shutil.rmtree(aside, ignore_errors=True)
            raise self._failed(error) from error
        ids = tuple(f"{name}/{index}" for index in range(len(self._buffer)))
        self.acknowledged += ids
        self._buffer = []
        return ids

    def adopt(self, folder: Path) -> str:
        """Publish a whole segment that was written into a folder of the store's file system; returns its name.

        Nothing of it is checked here. Raises `StoreError` when the disk is full or fails; the folder is then where it was.
        """
        try:
            fsync_tree(folder)
            name = self._next_name()
            self._publish(folder, self._segments / name)
        except OSError as error:
            raise StoreError(
                f"cannot publish {folder} in {self._root} ({error}): it is kept, free some space and try again"
            ) from error
        return name

    def close(self) -> None:
        """Publish what is buffered and let go of the slot. When publishing fails the writer stays open for a retry."""
        self.flush()
        if self._lock >= 0:
            # Closing alone would leave the slot to processes that were forked meanwhile.
            fcntl.flock(self._lock, fcntl.LOCK_UN)
            os.close(self._lock)
            self._lock = -1

    def _publish(self, aside: Path, target: Path) -> None:
        try:
            publish_folder(aside, target)
        except OSError:
            # Renamed but not known to be durable: withdrawn, or trying again would publish the episodes twice.
            if target.exists():
                os.rename(target, aside)
            raise

    def _next_name(self) -> str:
        """Counts on from everything published, so that later segments sort after earlier ones, whoever wrote them."""
        counters = [int(path.name.split("-")[0]) for path in published(self._root)]
        return f"{max(counters, default=-1) + 1:06d}-{self._slot:03d}"

    def _failed(self, error: OSError) -> StoreError:
        kept = f"{len(self._buffer)} episodes are kept in memory, what was published before is intact"
        if error.errno in _FULL:
            return StoreError(
                f"no space left to write to {self._root} ({error}): {kept}; free some space and flush again"
            )
        return StoreError(f"cannot write to {self._root} ({error}): {kept}; repair the cause and flush again")


def published(root: Path) -> list[Path]:
    """The published segments of a store, by name. Anything else that lies there is not ours."""
    return sorted(path for path in (root / "segments").iterdir() if is_segment_name(path.name))


def is_segment_name(name: str) -> bool:
    """Whether a published segment may be called so."""
    return _SEGMENT.fullmatch(name) is not None


def claim_slot(root: Path) -> tuple[int, int]:
    """The lowest free writer slot of a store and the open descriptor that holds it; sweeps what dead writers left."""
    try:
        (root / "writers").mkdir(exist_ok=True)
        (root / "segments").mkdir(exist_ok=True)
        for slot in range(1000):
            lock = _try_lock(root, slot)
            if lock is not None:
                _sweep(root, slot)
                return slot, lock
    except OSError as error:
        raise StoreError(f"cannot open {root} for writing ({error}): check that it is there and writable") from error
    raise StoreError(f"{root} has 1000 writers already: close some")


def _try_lock(root: Path, slot: int) -> int | None:
    descriptor = os.open(root / "writers" / f"{slot:03d}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _sweep(root: Path, mine: int) -> None:
    """Remove half-written segments whose writer is surely dead: its slot's lock can be had."""
    for leftover in (root / "segments").glob(f"{ASIDE}[0-9][0-9][0-9]"):
        slot = int(leftover.name.removeprefix(ASIDE))
        lock = None if slot == mine else _try_lock(root, slot)
        if slot != mine and lock is None:
            continue
        logger.warning("removing %s, left by a writer that was killed before it published", leftover)
        shutil.rmtree(leftover, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _size(episode: Episode) -> int:
    """Bytes of its arrays."""
    arrays = [*episode.observations.values(), *episode.steps.values(), episode.actions, episode.rewards]
    return sum(array.nbytes for array in arrays)


def _layout(episode: Episode) -> dict[str, Any]:
    """What must agree between the episodes of a segment: array -> dtype and shape of one row."""
    arrays = {f"observations/{k}": v for k, v in episode.observations.items()} | {
        f"steps/{k}": v for k, v in episode.steps.items()
    }
    return {name: (str(value.dtype), value.shape[1:]) for name, value in arrays.items()}
