"""`Incoming`: takes segments of other stores into one, each by one rename, however often a transfer breaks.

    <store>/incoming/lock                    held by the one process that takes segments for this store
    <store>/incoming/<identity>.<segment>/   one transfer (`steer.server.partial`)

A segment is acknowledged by its name in this store, and only once it is whole, checked, durable and published. Offering it
again finds it there. Knows no socket; the methods block on the disk and are called one at a time.

Errors say what the sender should do: `SpecError`, do not send this; any other, try again later.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from steer.data.check import check_segment
from steer.data.labels import append_label, read_labels
from steer.data.origin import Received, SegmentId, read_origins, store_identity, write_origin
from steer.data.parcel import SegmentFile, check_files, digest
from steer.data.segment import Segment
from steer.data.store import EpisodeStore, stored_robot
from steer.data.writer import EpisodeWriter
from steer.errors import SessionError, SpecError, StoreError
from steer.robot import RobotSpec
from steer.serial import to_json
from steer.server.partial import Partial

_log = structlog.get_logger(__name__)

MAX_SEGMENT_BYTES = 1 << 30
MAX_PARTIALS = 64
KEEP_S = 86_400.0


@dataclass(frozen=True)
class Offered:
    """What is there of an offered segment: its name in this store, or the bytes of each of its files."""

    published: str
    held: tuple[int, ...] = ()


@dataclass(frozen=True)
class GivenLabel:
    """What somebody said of an episode on the other side. source: who says so."""

    segment: SegmentId
    index: int
    success: bool
    source: str


class Incoming:
    """See the module. The store is made for the robot that joins first, if there is none."""

    _robot: RobotSpec
    _writer: EpisodeWriter
    identity: str

    def __init__(
        self,
        path: Path,
        max_segment_bytes: int = MAX_SEGMENT_BYTES,
        max_partials: int = MAX_PARTIALS,
        keep_s: float = KEEP_S,
    ) -> None:
        """keep_s: what was not continued for so long is removed at the start."""
        self._path = path
        self.max_segment_bytes = max_segment_bytes
        self._max_partials = max_partials
        self._keep_s = keep_s
        self._partials: dict[SegmentId, Partial] = {}
        self._published: dict[SegmentId, Received] = {}
        self._lock = -1
        if (path / "store.json").exists():
            self._open()

    def join(self, robot: RobotSpec, sender: str) -> str:
        """The identity of this store; raises `SpecError` unless it is another one of the same robot."""
        if self._lock < 0:
            EpisodeStore.create(self._path, robot, exist_ok=True, skip_broken=True)
            self._open()
            _log.info("taking segments", store=str(self._path), robot=robot.name)
        self._check_robot(robot)
        if sender == self.identity:
            raise SpecError(
                f"the robot records into the server's own store {self._path}: there is nothing to send, leave --upload away"
            )
        return self.identity

    def offer(self, robot: RobotSpec, segment: SegmentId, files: Sequence[SegmentFile]) -> Offered:
        """Begin or continue a transfer, or find it done. Raises `SpecError` where the segment cannot be taken."""
        self._check_robot(robot)
        check_files(files, self.max_segment_bytes)
        received = self._find(segment)
        if received is not None:
            if received.digest != digest(files):
                raise SpecError(
                    f"segment {segment} is here as {received.name} with other content: its store was changed or is one of two "
                    "copies that were both recorded to; record to a new store"
                )
            return Offered(received.name)
        with self._disk("take a segment"):
            if segment not in self._partials:
                self._check_room(segment)
            self._partials[segment] = partial = Partial.begin(self._folder(segment), files)
        return Offered("", tuple(partial.held(file.path) for file in files))

    def write(self, segment: SegmentId, parts: Iterable[tuple[str, int, bytes]]) -> None:
        """Append (path, offset, data) to the files of an offered segment."""
        partial = self._partial(segment)
        with self._disk("write"):
            for part in parts:
                partial.append(*part)

    def publish(self, segment: SegmentId) -> str:
        """Check a complete segment and add it to the store; its name there."""
        received = self._find(segment)
        if received is not None:
            return received.name
        partial = self._partial(segment)
        with self._disk("check a segment"):
            partial.check()
        try:
            episodes = check_segment(partial.content, self._robot, set(partial.files))
        except SpecError:
            self._drop(segment)
            raise
        files = tuple(partial.files.values())
        with self._disk("publish a segment"):
            write_origin(partial.content, segment, digest(files))
        name = self._writer.adopt(partial.content)
        self._published[segment] = Received(name, digest(files))
        self._drop(segment)
        _log.info("segment received", segment=name, episodes=episodes, bytes=sum(file.size for file in files))
        return name

    def label(self, labels: Iterable[GivenLabel]) -> None:
        """Add what was said of published episodes; what holds already, or is of none that is here, changes nothing."""
        self._check_joined()
        holding = read_labels(self._path / "labels.jsonl")
        for label in labels:
            received = self._find(label.segment)
            if received is None or label.index >= self._episodes(received):
                _log.warning("a label of an unknown episode", segment=str(label.segment), index=label.index)
                continue
            name = f"{received.name}/{label.index}"
            held = holding.get(name)
            if held is None or (held.success, held.source) != (label.success, label.source):
                holding[name] = append_label(self._path / "labels.jsonl", name, label.success, label.source)

    def close(self) -> None:
        """Let others take segments for this store. Transfers can be continued."""
        if self._lock >= 0:
            self._writer.close()
            os.close(self._lock)
            self._lock = -1

    # -- opening

    def _open(self) -> None:
        lock = self._claim()
        try:
            self._robot = stored_robot(self._path)
            self.identity = store_identity(self._path)
            self._published = read_origins(self._path)
            self._sweep()
            self._writer = EpisodeWriter(self._path, self._robot)
        except BaseException:
            os.close(lock)
            raise
        self._lock = lock

    def _claim(self) -> int:
        with self._disk("take segments"):
            (self._path / "incoming").mkdir(exist_ok=True)
            lock = os.open(self._path / "incoming" / "lock", os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                os.close(lock)
                raise StoreError(
                    f"another server takes segments for {self._path}: stop it, or give another --experience"
                ) from error
        return lock

    def _sweep(self) -> None:
        """Remove transfers that were published in a process's last moment, and those that nobody continued."""
        done = {str(segment) for segment in self._published}
        for folder in self._transfers():
            offer = folder / "offer.json"
            # Killed before it was written down what is coming: nothing of that came.
            age_s = round(time.time() - offer.stat().st_mtime) if offer.exists() else None
            if folder.name in done or age_s is None or age_s > self._keep_s:
                _log.info("removing a transfer", segment=folder.name, published=folder.name in done, age_s=age_s)
                shutil.rmtree(folder, ignore_errors=True)
        self._partials = {segment: kept for segment, kept in self._partials.items() if kept.folder.exists()}

    def _transfers(self) -> list[Path]:
        return [path for path in (self._path / "incoming").iterdir() if path.is_dir()]

    # -- what is asked often

    def _check_robot(self, robot: RobotSpec) -> None:
        self._check_joined()
        if robot != self._robot:
            fields = "; ".join(differences(to_json(robot), to_json(self._robot)))
            raise SpecError(
                f"the store of robot {robot.name!r} does not fit the server's of {self._robot.name!r} (sent against held): "
                f"{fields}: send to a server with a store of this robot"
            )

    def _check_joined(self) -> None:
        if self._lock < 0:
            raise SessionError("the server has no store yet: join first")

    def _check_room(self, segment: SegmentId) -> None:
        for _ in range(2):
            others = [path for path in self._transfers() if path.name != str(segment)]
            if len(others) < self._max_partials:
                return
            self._sweep()
        raise StoreError(
            f"{len(others)} segments are on their way to {self._path}, no more are begun until some are there: "
            f"those that nobody continues are removed after {self._keep_s / 3600:g} h"
        )

    def _find(self, segment: SegmentId) -> Received | None:
        """The published segment; None where it is not there, or no more."""
        received = self._published.get(segment)
        if received is not None and not (self._path / "segments" / received.name).exists():
            del self._published[segment]
            return None
        return received

    def _episodes(self, received: Received) -> int:
        """How many it has; none where it was damaged since."""
        try:
            return len(Segment(self._path / "segments" / received.name).records)
        except StoreError:
            return 0

    def _partial(self, segment: SegmentId) -> Partial:
        self._check_joined()
        partial = self._partials.get(segment)
        if partial is None:
            raise SessionError(f"segment {segment} is not being sent, or the server restarted: offer it again")
        return partial

    def _drop(self, segment: SegmentId) -> None:
        self._partials.pop(segment).remove()

    def _folder(self, segment: SegmentId) -> Path:
        return self._path / "incoming" / str(segment)

    @contextmanager
    def _disk(self, what: str) -> Iterator[None]:
        """What the disk raises becomes a `StoreError`: the sender keeps the segment and tries again."""
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"the server cannot {what} for {self._path} ({error}): free some space there, the sender tries again"
            ) from error


def differences(sent: Any, held: Any, place: str = "robot") -> list[str]:
    """Where two JSON values differ, each as "robot.action.rate_hz: 10.0 against 20.0"."""
    if isinstance(sent, dict) and isinstance(held, dict):
        return [
            line
            for key in sorted({*sent, *held})
            for line in differences(sent.get(key), held.get(key), f"{place}.{key}")
        ]
    if isinstance(sent, list) and isinstance(held, list) and len(sent) == len(held):
        pairs = enumerate(zip(sent, held, strict=True))
        return [line for index, pair in pairs for line in differences(*pair, f"{place}[{index}]")]
    return [] if sent == held else [f"{place}: {sent!r} against {held!r}"]
