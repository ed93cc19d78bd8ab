"""What a segment is made of while it travels: its files by path, size and SHA-256, the same on both sides.

Paths are checked by the side that receives: only what `steer.data.segment` writes, nothing that could leave the folder.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from steer.data.segment import MANIFEST
from steer.errors import SpecError, StoreError

MAX_FILES = 20_000
_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.\-]*"
_ARRAY = rf"(?:actions|rewards|episode_ends|(?:observations|steps|goal_images)/{_NAME})"
_PATH = re.compile(
    rf"manifest\.json|zarr\.json|(?:observations|steps|goal_images)/zarr\.json|{_ARRAY}/zarr\.json|{_ARRAY}/c(?:/\d+)+"
)


@dataclass(frozen=True)
class SegmentFile:
    """One file. path: relative to the segment's folder, with forward slashes."""

    path: str
    size: int
    sha256: bytes


def list_files(folder: Path) -> tuple[SegmentFile, ...]:
    """The files of a published segment. Raises `StoreError` when it is incomplete or changed its sizes since."""
    try:
        sizes = manifest_sizes(folder)
        files = []
        for name in (*sizes, MANIFEST):
            size = (folder / name).stat().st_size
            if size != sizes.get(name, size):
                raise ValueError(f"{name} has {size} bytes, {sizes[name]} were written")
            files.append(SegmentFile(name, size, sha256_of(folder / name)))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise StoreError(f"segment {folder} is damaged ({error}): restore it from a copy") from error
    return tuple(files)


def manifest_sizes(folder: Path) -> dict[str, int]:
    """Path -> bytes of every file but the manifest itself, as it was written. Raises as `json` and the disk do."""
    sizes = json.loads((folder / MANIFEST).read_text())
    return {str(name): int(size) for name, size in sizes.items()}


def sha256_of(path: Path) -> bytes:
    """Read in pieces, whatever its size. Raises OSError as it comes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def digest(files: Sequence[SegmentFile]) -> str:
    """One word for the content of all files, in whatever order they are listed."""
    lines = sorted(f"{file.sha256.hex()} {file.size} {file.path}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def check_files(files: Sequence[SegmentFile], max_bytes: int) -> None:
    """Raise `SpecError` unless a segment may consist of these files."""
    if len(files) > MAX_FILES:
        raise SpecError(f"{len(files)} files in a segment, at most {MAX_FILES} are taken")
    names = {file.path for file in files}
    wrong = [file.path for file in files if not _PATH.fullmatch(file.path)]
    if wrong:
        raise SpecError(f"files {wrong[:5]} do not belong into a segment: send what its {MANIFEST} lists, and itself")
    if len(names) != len(files) or MANIFEST not in names:
        raise SpecError(f"the files of a segment: each once, and {MANIFEST} among them")
    if any(str(parent) in names for name in names for parent in Path(name).parents):
        raise SpecError("a file of the segment is a folder of another one")
    if any(file.size < 1 or len(file.sha256) != hashlib.sha256().digest_size for file in files):
        raise SpecError("every file of a segment has at least one byte, and a SHA-256 of 32 bytes")
    size = sum(file.size for file in files)
    if size > max_bytes:
        raise SpecError(
            f"the segment has {size} bytes and the server takes {max_bytes}: "
            "record with fewer episodes per segment, or start the server with a larger --max-segment-bytes"
        )
