"""`Experience`: the online episodes of a run, from the store into the replay, round by round, with the labels that hold now."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import structlog

from steer.data.episode import EpisodeRecord
from steer.data.frames import Frames, load_frames
from steer.data.store import EpisodeStore
from steer.errors import StoreError
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
        self._labels: dict[str, int] = {}  # of every online episode, the label that its outcome and rewards follow
        self.refresh()

    def refresh(self) -> None:
        """See what was published and labelled since, the same in every process.

        Raises `StoreError` where this process does not find what the first one sees.
        """
        self._store.refresh()
        self._records = self._processes.told({record.id: record for record in self._store.records()})
        if not self._processes.first:
            # The first may have looked later, and seen more.
            self._store.refresh()
        self._places = {record.id: place for place, record in enumerate(self._store.records())}
        if lost := [name for name in self._records if name not in self._places]:
            raise StoreError(
                f"{self._store.path}: the first learner process sees episodes that another does not ({lost[0]}; {len(lost)} in "
                f"all, damaged segments: {list(self._store.broken)}): let all processes see one disk, then resume"
            )

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
        frames = self._load(ids)
        proposals = self._processes.after_first(lambda: self._proposals.online(number, frames, student))
        self.newest = Data(frames, proposals)
        self.replay.grow(self.newest)
        return self.newest

    def relabel(self) -> None:
        """A person may have corrected labels since: then the online episodes have other outcomes, and rewards."""
        online = self.replay.online
        if online is None:
            return
        # An episode whose segment is gone since keeps what was known of it.
        there = [name for name in online.frames.ids if name in self._records]
        changed = [name for name in there if self._records[name].label_version != self._labels[name]]
        if changed:
            self.replay.relabel(online.frames.with_outcomes(self._load(changed)))

    def success(self, last: int) -> float:
        """Share of the last online episodes that succeeded."""
        assert self.replay.online is not None
        return float(np.mean(self.replay.online.frames.success[-last:]))

    def _offline(self, store: EpisodeStore | None) -> Data | None:
        """The offline episodes with the frozen policy's candidates; None where none are used."""
        if store is None or not self._config.offline_share:
            return None
        proposals = self._processes.after_first(lambda: self._proposals.offline(store))
        return Data(self._rewarded(load_frames(store)), proposals)

    def _load(self, ids: Sequence[str]) -> Frames:
        """These online episodes, with the outcomes that the first process knows of."""
        records = [self._records[name] for name in ids]
        self._labels |= {record.id: record.label_version for record in records}
        places = [self._places[name] for name in ids]
        return self._rewarded(load_frames(self._store, places, records=records))

    def _rewarded(self, frames: Frames) -> Frames:
        """Rewarded as the run wants it."""
        return frames.rewarded_by_success() if self._config.rewards == "success" else frames
