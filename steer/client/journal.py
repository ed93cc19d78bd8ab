"""`Journal`: which segments of a store another store has acknowledged, on the disk beside them.

    <store>/uploads/lock               held by the one process that sends
    <store>/uploads/<identity>.jsonl   for the store of this identity: {"segment", "published"} or {"labels"} per line

A line is written after the acknowledgement came. One that is lost costs a question, for the other side knows as well.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from steer.errors import StoreError


class Journal:
    """What one receiver has acknowledged.

    labels: the version up to which it has the labels, except those of the segments in `unlabelled`: these came after it had.
    """

    def __init__(self, store: Path, receiver: str) -> None:
        self.segments: dict[str, str] = {}
        """Name here -> name there."""
        self.labels = 0
        self.unlabelled: set[str] = set()
        self._path = store / "uploads" / f"{receiver}.jsonl"
        try:
            self._read()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"{self._path} cannot be read ({error}): remove it, the server is then asked what it has"
            ) from error

    def add_segment(self, segment: str, published: str) -> None:
        """The segment is there, under this name."""
        self._take_segment(segment, published)
        self._append({"segment": segment, "published": published})

    def add_labels(self, version: int) -> None:
        """The labels of all segments are there, up to this version."""
        self._take_labels(version)
        self._append({"labels": version})

    def _take_segment(self, segment: str, published: str) -> None:
        self.segments[segment] = published
        self.unlabelled.add(segment)

    def _take_labels(self, version: int) -> None:
        self.labels = version
        self.unlabelled.clear()

    def _read(self) -> None:
        content = self._path.read_bytes() if self._path.exists() else b""
        # An unterminated last line is of a process that was killed.
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            os.truncate(self._path, len(whole))
        for line in whole.splitlines():
            entry = json.loads(line)
            if "labels" in entry:
                self._take_labels(int(entry["labels"]))
            else:
                self._take_segment(str(entry["segment"]), str(entry["published"]))

    def _append(self, entry: dict[str, Any]) -> None:
        try:
            with self._path.open("ab", buffering=0) as file:
                end = file.tell()
                line = json.dumps(entry).encode() + b"\n"
                if file.write(line) != len(line):
                    file.truncate(end)
                    raise OSError("not all of the line could be written")
                os.fsync(file.fileno())
        except OSError as error:
            raise StoreError(f"{self._path} cannot be written ({error}): free some space") from error


def claim(store: Path) -> int:
    """The descriptor of the lock of the one process that may send from a store; raises `StoreError` when another has it."""
    try:
        (store / "uploads").mkdir(exist_ok=True)
        lock = os.open(store / "uploads" / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StoreError(f"cannot write to {store} ({error}): check that it is there and writable") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise StoreError(f"another process is sending the segments of {store}: wait for it, or stop it") from error
    return lock
