"""Frames that grow by whole episodes, in place: what is there already is neither copied each time nor held twice.

Arrays have room to spare and are doubled when it is used up, so that n rows cost O(n) copies in all. Those larger than the memory
limit lie in an unnamed temporary file that merely becomes longer; its unwritten part takes no space. What was handed out before
stays valid: rows are only ever added behind it.
"""

from __future__ import annotations

import logging
import tempfile
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike

from steer.data.frames import MEMORY_LIMIT_BYTES, Frames, check_joinable, joined
from steer.errors import SpecError
from steer.spec import Array

logger = logging.getLogger(__name__)


class GrowingArray:
    """Rows of one shape and dtype."""

    def __init__(
        self, row_shape: tuple[int, ...], dtype: DTypeLike, memory_limit_bytes: int = MEMORY_LIMIT_BYTES
    ) -> None:
        self._room: Array = np.empty((0, *row_shape), dtype)
        self._used = 0
        self._limit = memory_limit_bytes
        self._file: IO[bytes] | None = None

    def append(self, rows: Array) -> Array:
        """All rows, these last. Raises `SpecError` for rows of another form."""
        if rows.shape[1:] != self._room.shape[1:] or rows.dtype != self._room.dtype:
            raise SpecError(
                f"rows of {rows.dtype} {rows.shape[1:]} cannot follow those of {self._room.dtype} {self._room.shape[1:]}: "
                "keep data of one form together"
            )
        first, self._used = self._used, self._used + len(rows)
        if self._used > len(self._room):
            self._make_room(first)
        self._room[first : self._used] = rows
        return self._room[: self._used]

    def _make_room(self, filled: int) -> None:
        """Room for what is wanted and as much again."""
        shape = (2 * self._used, *self._room.shape[1:])
        size = int(np.prod(shape, dtype=np.int64)) * self._room.itemsize
        before = self._room
        if size <= self._limit:
            self._room = np.empty(shape, before.dtype)
        elif self._file is None:
            logger.info("mapping growing arrays of %s from a temporary file in %s", shape, tempfile.gettempdir())
            # It lives as long as this array: a mapping that is to grow needs its file.
            self._file = tempfile.TemporaryFile(prefix="steer-frames-")  # noqa: SIM115
            self._room = _mapped(self._file, shape, before.dtype, size)
        else:
            # The same file, longer: nothing is to be copied.
            self._room = _mapped(self._file, shape, before.dtype, size)
            return
        self._room[:filled] = before[:filled]


def _mapped(file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any], size: int) -> Array:
    file.truncate(size)
    return np.memmap(file, dtype=dtype, mode="r+", shape=shape)


class GrowingFrames:
    """Episodes of one robot, appended to."""

    def __init__(self, memory_limit_bytes: int = MEMORY_LIMIT_BYTES) -> None:
        self.frames: Frames | None = None
        """All of them; may be replaced by the same episodes with other outcomes."""
        self._limit = memory_limit_bytes
        self._observations: dict[str, GrowingArray] = {}

    def append(self, new: Frames) -> Frames:
        """All episodes, these last. Raises `SpecError` for another robot's, or another shape's."""
        parts = [new] if self.frames is None else [self.frames, new]
        check_joinable(parts)
        observations = {key: self._growing(key, value).append(value) for key, value in new.observations.items()}
        # Without observations a frame is small: the rest is joined anew.
        self.frames = joined(parts, observations)
        return self.frames

    def _growing(self, key: str, value: Array) -> GrowingArray:
        return self._observations.setdefault(key, GrowingArray(value.shape[1:], value.dtype, self._limit))
