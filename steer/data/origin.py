"""Where segments come from: the identity of a store, and `origin.json` in a segment that was recorded to another one.

A segment's name is that of one store; with the identity of the store it was recorded to it names the segment everywhere.
`origin.json` is written before the segment is published, so that one rename says both: it is there, and whose it is.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from dataclasses import dataclass
from pathlib import Path

from steer.data.writer import is_segment_name, published
from steer.errors import SpecError, StoreError
from steer.files import fsync_path

ORIGIN = "origin.json"
_IDENTITY = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class SegmentId:
    """A segment wherever it lies: identity of the store that it was recorded to, and its name there."""

    store: str
    segment: str

    def __post_init__(self) -> None:
        if not _IDENTITY.fullmatch(self.store):
            raise SpecError(f"store identity {self.store!r}: expected 32 hexadecimal digits")
        if not is_segment_name(self.segment):
            raise SpecError(f"segment {self.segment!r}: expected a name such as '000012-000'")

    def __str__(self) -> str:
        return f"{self.store}.{self.segment}"


@dataclass(frozen=True)
class Received:
    """A segment of this store that came from another one. digest: of its files, see `steer.data.parcel.digest`."""

    name: str
    digest: str


def store_identity(root: Path) -> str:
    """The identity of the store at `root`; it gets one the first time that it is asked."""
    path = root / "identity"
    try:
        if not path.exists():
            _create(path)
        identity = path.read_text().strip()
    except OSError as error:
        raise StoreError(f"the identity of the store {root} cannot be read or written ({error})") from error
    if not _IDENTITY.fullmatch(identity):
        raise StoreError(f"{path} holds {identity!r}, expected 32 hexadecimal digits: restore it from a copy")
    return identity


def _create(path: Path) -> None:
    aside = path.with_name(f".identity.{uuid.uuid4().hex[:8]}")
    try:
        aside.write_text(uuid.uuid4().hex + "\n")
        fsync_path(aside)
        # A link, unlike a rename, fails when another process was first.
        os.link(aside, path)
        fsync_path(path.parent)
    except FileExistsError:
        pass
    finally:
        aside.unlink(missing_ok=True)


def write_origin(folder: Path, segment: SegmentId, digest: str) -> None:
    """Say in a segment that is not published yet where it is from. Raises OSError as it comes."""
    content = {"store": segment.store, "segment": segment.segment, "digest": digest}
    (folder / ORIGIN).write_text(json.dumps(content))


def read_origins(root: Path) -> dict[SegmentId, Received]:
    """Every published segment of the store that came from another one."""
    received = {}
    for folder in published(root):
        path = folder / ORIGIN
        try:
            content = json.loads(path.read_text())
            received[SegmentId(content["store"], content["segment"])] = Received(folder.name, str(content["digest"]))
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError, SpecError) as error:
            raise StoreError(f"{path} cannot be read ({error}): restore it, or move the segment away") from error
    return received
