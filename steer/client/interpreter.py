"""`punctual`: keeps Python itself from making a control thread late."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_SWITCH_S = 0.001


@contextmanager
def punctual() -> Iterator[None]:
    """While the block runs, a thread that wakes waits at most a millisecond for the interpreter, and collections stay short.

    By default another thread may keep the interpreter for 5 ms, and a full collection walks over everything that was ever
    imported, which takes tens of milliseconds; what exists now is set aside from that.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_S)
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        sys.setswitchinterval(before)
