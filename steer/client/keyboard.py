"""`stop_on_key`: a key stops the arm. Space, q or Escape, read from the terminal while the robot runs."""

from __future__ import annotations

import os
import select
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STOP_KEYS = b" q\x1b"


@contextmanager
def stop_on_key(stop: Callable[[], None], descriptor: int | None = None) -> Iterator[bool]:
    """Call `stop` once when a stop key is pressed; yields whether there is a terminal to press it on.

    The terminal delivers keys at once (cbreak mode) and does not echo them meanwhile; it is restored on exit. Ctrl-C keeps working.
    descriptor: the terminal, by default standard input.
    """
    terminal = _standard_input() if descriptor is None else descriptor
    if terminal is None or not os.isatty(terminal):
        yield False
        return
    before = termios.tcgetattr(terminal)
    wake_read, wake_write = os.pipe()
    thread = threading.Thread(target=_watch, args=(terminal, wake_read, stop), name="keyboard", daemon=True)
    try:
        tty.setcbreak(terminal)
        thread.start()
        yield True
    finally:
        os.write(wake_write, b"x")
        thread.join()
        os.close(wake_read)
        os.close(wake_write)
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _standard_input() -> int | None:
    try:
        return sys.stdin.fileno()
    except (AttributeError, OSError, ValueError):  # closed, or replaced by something without a descriptor
        return None


def _watch(terminal: int, wake: int, stop: Callable[[], None]) -> None:
    while True:
        ready, _, _ = select.select([terminal, wake], [], [])
        if wake in ready:
            return
        keys = os.read(terminal, 64)
        if not keys:  # the terminal is gone, and with it the only way to stop by a key
            stop()
            return
        if any(key in STOP_KEYS for key in keys):
            stop()
            return
