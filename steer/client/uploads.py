"""`Uploads`: what of a store a server has not acknowledged yet, and sending it, one step at a time.

Segments go first, oldest first; then the labels that came after the recording, those of segments that are there. What a server
will never take, and what is damaged here, is passed over, once said. Blocks on disk and network: `steer.client.uploader` gives it
a thread.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import structlog

from steer.client.experience_client import EpisodeLabel, ExperienceClient
from steer.client.journal import Journal, claim
from steer.data.labels import Label, read_labels
from steer.data.origin import SegmentId, store_identity
from steer.data.parcel import list_files
from steer.data.writer import published
from steer.errors import SpecError, SteerError, StoreError
from steer.robot import RobotSpec

_log = structlog.get_logger(__name__)

_LABELS_PER_CALL = 256
_NEVER = (-1, -1)


class Uploads:
    """See the module. One process at a time: raises `StoreError` when another one is sending from the store."""

    def __init__(self, store: Path, robot: RobotSpec, address: str, timeout_s: float = 30.0) -> None:
        self.counts: Counter[str] = Counter()
        """"sent" segments, "labels", "refused" by the server, "damaged" here."""
        self.address = address
        self.store = store
        self._identity = store_identity(store)
        self._lock = claim(store)
        self._client = ExperienceClient(address, robot, timeout_s)
        self._joined = False
        self._journal: Journal | None = None
        self._passed_over: set[str] = set()
        self._labels_seen = _NEVER

    def join(self) -> None:
        """Find the server, and what it has acknowledged. `step` does it where it is due."""
        self._journal = Journal(self.store, self._client.join(self._identity))
        self._labels_seen = _NEVER
        self._joined = True

    def step(self) -> bool:
        """Send one thing; false where there is nothing to send. Raises `SteerError`; what failed is due again."""
        if not self._joined:
            self.join()
        assert self._journal is not None
        try:
            waiting = self.waiting()
            return self._segment(waiting[0], self._journal) if waiting else self._labels(self._journal)
        except SteerError:
            # Whoever answers next may be a server that was started anew, on another store.
            self._joined = False
            raise

    def left(self) -> list[Path]:
        """Segments that the server is not known to have, oldest first."""
        there = {} if self._journal is None else self._journal.segments
        try:
            return [path for path in published(self.store) if path.name not in there]
        except OSError as error:
            raise StoreError(f"the segments of {self.store} cannot be listed ({error})") from error

    def waiting(self) -> list[Path]:
        """Those of them that are still to be sent: without those that were passed over."""
        return [path for path in self.left() if path.name not in self._passed_over]

    @property
    def passed_over(self) -> dict[str, int]:
        """Why -> how many segments, where there are any."""
        return {why: self.counts[why] for why in ("refused", "damaged") if self.counts[why]}

    def interrupt(self) -> None:
        """End the call in progress, from another thread: nothing that it carries is lost, on either side."""
        self._client.close()

    def close(self) -> None:
        """Let others send."""
        self._client.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _segment(self, folder: Path, journal: Journal) -> bool:
        try:
            files = list_files(folder)
        except StoreError as error:
            return self._pass_over(folder, "damaged", error)
        try:
            name = self._client.send(SegmentId(self._identity, folder.name), folder, files)
        except SpecError as error:
            return self._pass_over(folder, "refused", error)
        journal.add_segment(folder.name, name)
        self._labels_seen = _NEVER
        self.counts["sent"] += 1
        return True

    def _pass_over(self, folder: Path, why: str, error: SteerError) -> bool:
        self._passed_over.add(folder.name)
        self.counts[why] += 1
        _log.error("a segment cannot be uploaded", segment=folder.name, reason=str(error))
        return True

    def _labels(self, journal: Journal) -> bool:
        """The last word on every episode that is there, if it was not said yet; unread while nothing changed."""
        path = self.store / "labels.jsonl"
        seen = (path.stat().st_size, path.stat().st_mtime_ns) if path.exists() else (0, 0)
        if seen == self._labels_seen:
            return False
        holding = read_labels(path)
        due = [self._label(name, label) for name, label in holding.items() if _is_due(name, label, journal)]
        for start in range(0, len(due), _LABELS_PER_CALL):
            self._client.label(due[start : start + _LABELS_PER_CALL])
        newest = max((label.version for label in holding.values()), default=0)
        if due or newest > journal.labels:
            journal.add_labels(max(newest, journal.labels))
        self.counts["labels"] += len(due)
        self._labels_seen = seen
        return bool(due)

    def _label(self, episode: str, label: Label) -> EpisodeLabel:
        segment, _, index = episode.partition("/")
        return EpisodeLabel(SegmentId(self._identity, segment), int(index), label.success, label.source)


def _is_due(episode: str, label: Label, journal: Journal) -> bool:
    """A label of a segment that is there: said since the last ones were sent, or before the segment was."""
    segment = episode.partition("/")[0]
    return segment in journal.unlabelled or (segment in journal.segments and label.version > journal.labels)


def account(uploads: Uploads) -> str:
    """What was sent and what was not, in one line."""
    counts, left = uploads.counts, len(uploads.left())
    if not (left or counts["sent"] or counts["labels"]):
        return f"the server at {uploads.address} has every segment already"
    labels = f" and {_counted(counts['labels'], 'label')}" if counts["labels"] else ""
    why = ", ".join(f"{number} {why}" for why, number in uploads.passed_over.items())
    sent = f"uploaded {_counted(counts['sent'], 'segment')}{labels} to {uploads.address}, {left} left"
    return f"{sent} ({why})" if why else sent


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
