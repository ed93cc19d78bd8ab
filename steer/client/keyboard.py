"""The keyboard beside a running robot: a key stops the arm, others are handed to whoever listens.

Space, q or Escape stop. The terminal is read on a thread of its own.
"""

from __future__ import annotations

import os
import re
import select
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

STOP_KEYS = (" ", "q", "\x1b")

# An arrow key arrives as an escape sequence, and is not the Escape that stops the arm.
_KEY = re.compile(rb"\x1b\[([ABCD])|(.)", re.DOTALL)
_ARROWS = {b"A": "up", b"B": "down", b"C": "right", b"D": "left"}


@contextmanager
def watch_keys(
    stop: Callable[[], None], listeners: Sequence[Callable[[str], None]] = (), descriptor: int | None = None
) -> Iterator[bool]:
    """Call `stop` when a stop key is pressed or the terminal goes; yields whether there is a terminal to press it on.

    listeners: called with every other key, on the thread that reads: a character, or "up", "down", "left", "right".
    The terminal delivers keys at once (cbreak mode) and does not echo them meanwhile; it is restored on exit. Ctrl-C keeps working.
    descriptor: the terminal, by default standard input.
    """
    terminal = _standard_input() if descriptor is None else descriptor
    if terminal is None or not os.isatty(terminal):
        yield False
        return
    before = termios.tcgetattr(terminal)
    wake_read, wake_write = os.pipe()
    thread = threading.Thread(target=_watch, args=(terminal, wake_read, stop, listeners), name="keyboard", daemon=True)
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


def keys_in(typed: bytes) -> list[str]:
    """The keys of what a terminal sent."""
    return [_ARROWS[arrow] if arrow else other.decode("latin-1") for arrow, other in _KEY.findall(typed)]


def _standard_input() -> int | None:
    try:
        return sys.stdin.fileno()
    except (AttributeError, OSError, ValueError):  # closed, or replaced by something without a descriptor
        return None


def _watch(terminal: int, wake: int, stop: Callable[[], None], listeners: Sequence[Callable[[str], None]]) -> None:
    while True:
        ready, _, _ = select.select([terminal, wake], [], [])
        if wake in ready:
            return
        typed = os.read(terminal, 64)
        if not typed:  # the terminal is gone, and with it the only way to stop by a key
            stop()
            return
        for key in keys_in(typed):
            if key in STOP_KEYS:
                stop()
                return
            for listener in listeners:
                listener(key)
