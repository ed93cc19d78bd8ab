"""Labels that come after the recording: an append-only overlay of JSON lines beside the immutable segments.

One line per label: {"id", "success", "source", "time_s"} (Unix seconds); its version is its line number, and the last
line about an episode holds. An unterminated last line was never acknowledged: readers pass it over, the next writer
cuts it off.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from steer.data.episode import EpisodeRecord
from steer.errors import StoreError
from steer.files import fsync_path


@dataclass(frozen=True)
class Label:
    """What somebody said of an episode. version: 1 for the first line of the file."""

    success: bool
    source: str
    version: int

    def over(self, record: EpisodeRecord) -> EpisodeRecord:
        """The record, as it was recorded, with this label on it."""
        return replace(
            record,
            success=self.success,
            success_source=self.source,
            label_version=self.version,
            corrected=record.success is not self.success,
        )


def append_label(path: Path, episode_id: str, success: bool, source: str) -> Label:
    """Add a line and wait until it is on the disk. Raises `StoreError` when it cannot be; the file is then as before."""
    return append_labels(path, {episode_id: success}, source)[episode_id]


def append_labels(path: Path, successes: Mapping[str, bool], source: str) -> dict[str, Label]:
    """Add one line per episode id at once: with a `StoreError` none of them, and after a crash those that came first."""
    now = time.time()
    lines = "".join(
        json.dumps({"id": episode_id, "success": success, "source": source, "time_s": now}) + "\n"
        for episode_id, success in successes.items()
    )
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            first = _append(descriptor, lines.encode())
        finally:
            os.close(descriptor)
        fsync_path(path.parent)
    except OSError as error:
        raise StoreError(
            f"{len(successes)} labels, the first of {next(iter(successes))}, were not written to {path} ({error}): free some space "
            "and try again"
        ) from error
    return {
        episode_id: Label(success, source, first + number)
        for number, (episode_id, success) in enumerate(successes.items())
    }


def _append(descriptor: int, lines: bytes) -> int:
    """The number of the first new line."""
    content = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    end = content.rfind(b"\n") + 1
    os.ftruncate(descriptor, end)
    try:
        written = os.pwrite(descriptor, lines, end)
        if written != len(lines):
            raise OSError(f"{written} of {len(lines)} bytes written")
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, end)
        raise
    return content.count(b"\n") + 1


def read_labels(path: Path) -> dict[str, Label]:
    """Episode id -> the label that holds. Raises `StoreError` for a line that is no label."""
    if not path.exists():
        return {}
    labels = {}
    for version, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            entry: Any = json.loads(line)
            labels[str(entry["id"])] = Label(bool(entry["success"]), str(entry["source"]), version)
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"{path} line {version} is not a label ({error}): restore the file, or remove the line"
            ) from error
    return labels
