"""`Clock`: the control loop's only source of time, so that tests run the loop without waiting; `Stop` ends its waits."""

from __future__ import annotations

import queue
import time
from contextlib import suppress
from typing import Protocol


class Stop:
    """A request to stop, from any thread or from a signal handler.

    `threading.Event.set` takes a lock; where the interrupted thread holds it, the handler would wait for ever. `SimpleQueue.put`
    takes none.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()

    def set(self) -> None:
        self._is_set = True
        self._wake.put(None)

    def is_set(self) -> bool:
        return self._is_set

    def wait(self, timeout_s: float) -> None:
        """Return after `timeout_s`, or as soon as it is set."""
        if not self._is_set:
            with suppress(queue.Empty):
                self._wake.get(timeout=timeout_s)


class Clock(Protocol):
    """Monotonic time and a wait that a stop request ends early."""

    def now(self) -> float:
        """Seconds on a monotonic clock."""
        ...

    def sleep_until(self, deadline: float, stop: Stop) -> None:
        """Return at `deadline`, or as soon as `stop` is set."""
        ...


class MonotonicClock:
    """The machine's clock."""

    def now(self) -> float:
        return time.monotonic()

    def sleep_until(self, deadline: float, stop: Stop) -> None:
        left = deadline - time.monotonic()
        if left > 0:
            stop.wait(left)
