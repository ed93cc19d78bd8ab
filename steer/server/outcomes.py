"""`Outcomes`: which version played each stored episode, and whether it succeeded, from a store that grows.

An episode counts for a version when all its decisions were that version's, with its critic, and nobody helped. A version is
known by the models that the recorder and the simulated actors keep in `info["policy_version"]` and `info["critic_version"]`,
never by a number: other runs, whose episodes the store may hold too, count from 0 as well. An episode that safety ended has
failed, whatever else is said of it; one that nobody judged says nothing.

Only what stands beside the episodes is read, never the episodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import structlog

from steer.data.episode import EpisodeRecord
from steer.data.labels import read_labels
from steer.data.segment import Segment
from steer.data.writer import published
from steer.errors import StoreError
from steer.server.guard import Outcome

_log = structlog.get_logger(__name__)


class Outcomes:
    """The outcomes in one store, in the order in which they were first seen there."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._records: list[EpisodeRecord] = []
        self._seen: set[str] = set()
        self._state: object = None
        self._outcomes: tuple[Outcome, ...] = ()

    def read(self, numbers: Mapping[tuple[str, str], int]) -> tuple[Outcome, ...]:
        """What is known now; the same object if nothing is new.

        numbers: versions of policy and critic, as decisions carry them -> the number of the version.
        """
        if not (self._store / "store.json").exists():
            return self._outcomes  # nobody has recorded anything yet
        segments = published(self._store)
        if not self._seen.issubset(path.name for path in segments):
            # Another store is there now: the run was started anew.
            self._records, self._seen, self._state = [], set(), None
        for path in segments:
            if path.name not in self._seen:
                self._seen.add(path.name)
                self._take(path)
        labels = read_labels(self._store / "labels.jsonl")
        state = (len(self._records), dict(numbers), labels)
        if state != self._state:
            self._state = state
            labelled = (labels[r.id].over(r) if r.id in labels else r for r in self._records)
            found = (outcome_of(record, numbers) for record in labelled)
            self._outcomes = tuple(outcome for outcome in found if outcome is not None)
        return self._outcomes

    def _take(self, path: Path) -> None:
        try:
            self._records += Segment(path).records
        except StoreError as error:
            _log.warning("outcomes of a damaged segment are passed over", reason=str(error))


def outcome_of(record: EpisodeRecord, numbers: Mapping[tuple[str, str], int]) -> Outcome | None:
    """What an episode says of a version; None where it says nothing."""
    info = record.info
    success = False if info.get("stopped_by") == "safety" else record.success
    version = numbers.get((str(info.get("policy_version")), str(info.get("critic_version"))))
    if success is None or version is None or info.get("intervention_steps") or "versions" in info:
        return None
    return Outcome(version, success)
