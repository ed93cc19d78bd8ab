"""`Experience`: the online episodes of a run, from the store into the replay, round by round, with the labels that hold now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import structlog

from steer.data.episode import EpisodeRecord
from steer.data.frames import Frames, load_frames
from steer.data.store import EpisodeStore
from steer.online.config import OnlineConfig
from steer.online.processes import Processes
from steer.online.proposals import Proposals
from steer.online.replay import Data, Replay
from steer.policy import Policy

_log = structlog.get_logger(__name__)


class Experience:
    """Offline and online data of one run. `refresh` first; all else is about what the store held then."""

    def __init__(
        self,
        store: EpisodeStore,
        offline: EpisodeStore | None,
        proposals: Proposals,
        config: OnlineConfig,
        processes: Processes,
    ) -> None:
        self._store, self._proposals, self._config, self._processes = store, proposals, config, processes
        self.replay = Replay(self._offline(offline), config.offline_share)
        self.newest: Data | None = None
        """The last round that was taken in."""
        self._records: dict[str, EpisodeRecord] = {}
        self._places: dict[str, int] = {}
        self.refresh()

    def refresh(self) -> None:
        """See what was published and labelled since, the same in every process."""
        self._store.refresh()
        records = self._store.records()
        self._places = {record.id: place for place, record in enumerate(records)}
        told = self._processes.told({record.id: record for record in records})
        self._records = {name: record for name, record in told.items() if name in self._places}

    def record(self, name: str) -> EpisodeRecord:
        """What is known of an episode."""
        return self._records[name]

    def beyond(self, known: Sequence[Sequence[str]]) -> list[str]:
        """Episodes that are in none of these rounds."""
        taken = {name for ids in known for name in ids}
        return [name for name in self._records if name not in taken]

    def readable(self, ids: Sequence[str]) -> list[str]:
        """Those that the store still has: a segment that was damaged since costs its episodes, not the run."""
        lost = [name for name in ids if name not in self._records]
        if lost:
            _log.warning("episodes are gone, going on without them", episodes=lost, broken=list(self._store.broken))
        return [name for name in ids if name in self._records]

    def take(self, number: int, ids: Sequence[str], student: Callable[[], Policy]) -> Data:
        """Let the replay grow by these episodes. student: loads the policy that round `number` began with."""
        frames = self._rewarded(load_frames(self._store, [self._places[name] for name in ids]))
        if self._processes.first:
            self._proposals.online(number, frames, student)
        self._processes.wait()
        self.newest = Data(frames, self._proposals.online(number, frames, student))
        self.replay.grow(self.newest)
        return self.newest

    def relabel(self) -> None:
        """A person may have corrected labels since: then the online episodes have other outcomes."""
        online = self.replay.online
        if online is None:
            return
        # An episode whose segment is gone since keeps what was known of it.
        known = [self._records.get(name) for name in online.frames.ids]
        success = np.array([bool(r.success) if r else s for r, s in zip(known, online.frames.success, strict=True)])
        if not np.array_equal(success, online.frames.success):
            pairs = list(zip(known, online.frames.labelled, online.frames.terminated, strict=True))
            frames = replace(
                online.frames,
                success=success,
                labelled=np.array([r.success is not None if r else labelled for r, labelled, _ in pairs]),
                terminated=np.array([r.terminated if r else terminated for r, _, terminated in pairs]),
            )
            self.replay.relabel(self._rewarded(frames))

    def success(self, last: int) -> float:
        """Share of the last online episodes that succeeded."""
        assert self.replay.online is not None
        return float(np.mean(self.replay.online.frames.success[-last:]))

    def _offline(self, store: EpisodeStore | None) -> Data | None:
        """The offline episodes with the frozen policy's candidates; None where none are used."""
        if store is None or not self._config.offline_share:
            return None
        if self._processes.first:
            self._proposals.offline(store)
        self._processes.wait()
        return Data(self._rewarded(load_frames(store)), self._proposals.offline(store))

    def _rewarded(self, frames: Frames) -> Frames:
        """Rewarded as the run wants it."""
        return frames.rewarded_by_success() if self._config.rewards == "success" else frames
