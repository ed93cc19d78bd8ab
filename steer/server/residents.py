"""`Residents`: the versions of the models that are in memory, and which session is answered by which.

A session is pinned to the version that its episode began with. It moves to the one that is served when its episode ends (a
request of a later episode), or with any request once that version was superseded `max_pin_s` ago. So at most two are in
memory: the one that is served, and one before it until no session is pinned to it. All of it happens on the event loop.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import WeakSet

from steer.engine import Engine


@dataclass(eq=False)
class Resident:
    """One version in memory. busy: decisions in progress. superseded_s: since when another is served, by the clock."""

    number: int
    engine: Engine
    busy: int = 0
    superseded_s: float = math.inf


class Pin:
    """What holds a session to a version; it begins with the session's first request."""

    def __init__(self) -> None:
        self.resident: Resident | None = None
        self.episode = -1


class Residents:
    """See the module."""

    def __init__(
        self, first: Engine, number: int = 0, max_pin_s: float = 60.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.current = Resident(number, first)
        self.older: Resident | None = None
        self._max_pin_s = max_pin_s
        self._clock = clock
        # Weakly, because sessions end in many ways.
        self._pins: WeakSet[Pin] = WeakSet()

    @property
    def engine(self) -> Engine:
        """The one that is served. All residents have the same specs."""
        return self.current.engine

    @contextmanager
    def deciding(self, pin: Pin, episode: int) -> Iterator[Engine]:
        """The engine for one decision of a session; it stays in memory meanwhile."""
        resident = self._choose(pin, episode)
        resident.busy += 1
        try:
            yield resident.engine
        finally:
            resident.busy -= 1

    def swap(self, new: Resident) -> None:
        """Serve `new` from the next episodes on. There must be room, unless it is the older one that comes back."""
        assert self.older is None or self.older is new
        self.current.superseded_s = self._clock()
        self.older, self.current = self.current, new
        new.superseded_s = math.inf

    def retire(self) -> None:
        """Forget the older version once nobody needs it."""
        if self.older is not None and not self.older.busy and not self.pinned():
            self.older = None

    def pinned(self) -> int:
        """Sessions that still are on the older version."""
        older = self.older
        if older is None or self._overdue(older):
            return 0
        return sum(pin.resident is older for pin in self._pins)

    def _choose(self, pin: Pin, episode: int) -> Resident:
        if pin.resident is None or episode > pin.episode or self._overdue(pin.resident):
            pin.resident = self.current
            self._pins.add(pin)
        pin.episode = episode
        return pin.resident

    def _overdue(self, resident: Resident) -> bool:
        return self._clock() - resident.superseded_s > self._max_pin_s
