"""Where a learner's episodes come from: rounds that wait for it, actors that play on meanwhile, or somebody else's recorder.

`steer.online.actor.Collector` is the first; here are the other two. Each is a `steer.online.actor.Source`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from steer.data.store import EpisodeStore
from steer.online.actor import Collector

_POLL_S = 0.5


class Background:
    """A collector in a thread of its own: actors play with the newest version that is out while the learner learns.

    warmup: so many first episodes are played `warmup_steered` or by the policy alone.
    """

    def __init__(self, collector: Collector, episodes: int, warmup: int = 0, warmup_steered: bool = True) -> None:
        self._collector, self._episodes = collector, episodes
        self._warmup, self._warmup_steered = min(warmup, episodes), warmup_steered
        self._changed = threading.Condition()
        self._there = 0
        self._closing = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._play, name="collector", daemon=True)

    def gather(self, until: int, version: int, steered: bool, stop: Callable[[], bool]) -> None:
        """Wait for the actors; raises what ended them."""
        if not self._thread.is_alive() and not self._there:
            self._there = self._collector.count(self._episodes)
            self._thread.start()
        with self._changed:
            while self._there < until and self._error is None and not stop():
                # Not without end: a signal sets `stop` and notifies nobody.
                self._changed.wait(_POLL_S)
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """End the actors with the next episode that is published; what others are playing then is played by a resumed run."""
        self._closing = True
        if self._thread.is_alive():
            self._thread.join()
        self._collector.close()

    def _play(self) -> None:
        try:
            self._collector.gather(self._warmup, None, self._warmup_steered, self._noted)
            if not self._closing:
                self._collector.gather(self._episodes, None, True, self._noted)
        except BaseException as error:  # noqa: BLE001  it is raised where episodes are waited for
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _noted(self) -> bool:
        """Called after every published episode; true when no more are wanted."""
        with self._changed:
            self._there += 1
            self._changed.notify_all()
        return self._closing


class Watcher:
    """Plays nothing: waits for what others record, such as `steer run --record` on a robot against a server."""

    def __init__(self, store: EpisodeStore) -> None:
        self._store = store

    def gather(self, until: int, version: int, steered: bool, stop: Callable[[], bool]) -> None:
        """Wait until enough episodes were published."""
        while not stop():
            self._store.refresh()
            if len(self._store) >= until:
                return
            time.sleep(_POLL_S)

    def close(self) -> None:
        """Nothing to release."""
