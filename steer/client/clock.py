"""`Clock`: the control loop's only source of time, so that tests run the loop without waiting."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """Monotonic time and a wait that a stop request ends early."""

    def now(self) -> float:
        """Seconds on a monotonic clock."""
        ...

    def sleep_until(self, deadline: float, stop: threading.Event) -> None:
        """Return at `deadline`, or as soon as `stop` is set."""
        ...


class MonotonicClock:
    """The machine's clock."""

    def now(self) -> float:
        return time.monotonic()

    def sleep_until(self, deadline: float, stop: threading.Event) -> None:
        left = deadline - time.monotonic()
        if left > 0:
            stop.wait(left)
