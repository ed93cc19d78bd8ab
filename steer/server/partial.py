"""`Partial`: one segment on its way into a store, on the disk, so that a transfer outlives both processes.

    <folder>/offer.json   what was announced; its time of change is that of the last write
    <folder>/content/     the files as far as they came

Sizes on the disk are the only account of what came: whoever continues asks for them. Content is judged by SHA-256 at the
end alone, so that it does not matter how often a transfer broke. Raises OSError as it comes.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from steer.data.parcel import SegmentFile, sha256_of
from steer.errors import SessionError, SpecError, StoreError
from steer.files import fsync_path


class Partial:
    """See the module. Not for several threads."""

    def __init__(self, folder: Path, files: Sequence[SegmentFile]) -> None:
        """Use `begin` or `load`."""
        self.folder = folder
        self.files = {file.path: file for file in files}
        self._sizes = {path: self._size(path) for path in self.files}

    @classmethod
    def begin(cls, folder: Path, files: Sequence[SegmentFile]) -> Partial:
        """Take up what is there of these files; what is there of others is removed first."""
        found = cls.load(folder)
        if found is not None and found.files == {file.path: file for file in files}:
            return found
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "content").mkdir(parents=True)
        aside = folder / ".offer.json"
        aside.write_text(json.dumps([[file.path, file.size, file.sha256.hex()] for file in files]))
        fsync_path(aside)
        os.rename(aside, folder / "offer.json")
        return cls(folder, files)

    @classmethod
    def load(cls, folder: Path) -> Partial | None:
        """What is there; None where nothing is that could be continued."""
        try:
            entries = json.loads((folder / "offer.json").read_text())
            files = [SegmentFile(path, size, bytes.fromhex(sha256)) for path, size, sha256 in entries]
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return cls(folder, files)

    @property
    def content(self) -> Path:
        """The folder that becomes the segment."""
        return self.folder / "content"

    def held(self, path: str) -> int:
        """Bytes of this file that are there."""
        return self._sizes[path]

    def append(self, path: str, offset: int, data: bytes) -> None:
        """Add to a file. Raises `SessionError` where the sender is mistaken about what is there: it asks and goes on."""
        file = self.files.get(path)
        if file is None or offset + len(data) > file.size:
            raise SpecError(f"{path!r}: {len(data)} bytes from {offset} on are not of what was offered")
        if offset != self._sizes[path]:
            raise SessionError(
                f"{path}: {self._sizes[path]} bytes are here, the sender goes on at {offset}: offer it again"
            )
        target = self.content / path
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with target.open("ab", buffering=0) as stream:
                written = stream.write(data)
            if written != len(data):
                raise OSError(f"{written} of {len(data)} bytes written to {target}")
        finally:
            # A full disk may have taken some of it.
            self._sizes[path] = self._size(path)
        os.utime(self.folder / "offer.json")

    def check(self) -> None:
        """Is everything there, and as it was sent? Files that are not are dropped, to be sent again."""
        missing = [path for path, file in self.files.items() if self._sizes[path] != file.size]
        if missing:
            raise SessionError(f"{len(missing)} files are not complete, {missing[0]} is one: offer the segment again")
        for path, file in self.files.items():
            if sha256_of(self.content / path) != file.sha256:
                (self.content / path).unlink()
                self._sizes[path] = 0
                raise StoreError(f"{path} is not what was offered (SHA-256): it was dropped, offer the segment again")

    def remove(self) -> None:
        """Forget the transfer."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _size(self, path: str) -> int:
        try:
            return (self.content / path).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return 0
