"""Labels from a classifier: what it says of a store's episodes, written over what was recorded, and how well it agrees.

Works with any `steer.classifier.SuccessClassifier` and needs no framework itself. What labels make of rewards is said
in `steer.data.frames`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from steer.classifier import SOURCE, SuccessClassifier, episode_score, source_of
from steer.data.store import EpisodeStore

Which: TypeAlias = Literal["unlabelled", "all", "none"]


@dataclass(frozen=True)
class Agreement:
    """Counts of episodes that somebody else had labelled: by what they said, and by what the classifier says."""

    true_success: int = 0
    false_success: int = 0
    true_failure: int = 0
    false_failure: int = 0

    @property
    def episodes(self) -> int:
        return self.true_success + self.false_success + self.true_failure + self.false_failure

    def and_one(self, known: bool, said: bool) -> Agreement:
        """With one more episode."""
        return Agreement(
            self.true_success + (known and said),
            self.false_success + (not known and said),
            self.true_failure + (not known and not said),
            self.false_failure + (known and not said),
        )


@dataclass(frozen=True)
class Labelling:
    """What was done: ids that were labelled as successes and as failures, and the agreement with labels of others."""

    successes: tuple[str, ...]
    failures: tuple[str, ...]
    agreement: Agreement


def label_store(
    store: EpisodeStore,
    classifier: SuccessClassifier,
    which: Which = "unlabelled",
    episodes: Sequence[int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Labelling:
    """Judge episodes (all by default) and label those that nobody has labelled, `all`, or `none` of them.

    All labels are written at the end, at once. Labels of this and of other classifiers are no truth to agree with, and are
    passed over in the agreement. May be called again while the store grows; raises `SpecError` where the observations are not
    what the classifier looks at.
    """
    chosen = range(len(store)) if episodes is None else episodes
    records = store.records()
    if which == "unlabelled":
        # Episodes that need no label are read only where their labels are somebody's to agree with.
        chosen = [
            index for index in chosen if records[index].success is None or _by_others(records[index].success_source)
        ]
    labels: dict[str, bool] = {}
    agreement = Agreement()
    for done, (index, episode) in enumerate(zip(chosen, store.episodes(chosen), strict=True), start=1):
        record = records[index]
        said = episode_score(classifier, episode.observations) >= classifier.spec.threshold
        if record.success is not None and _by_others(record.success_source):
            agreement = agreement.and_one(record.success, said)
        if which == "all" or (which == "unlabelled" and record.success is None):
            labels[record.id] = said
        if progress is not None:
            progress(done, len(chosen))
    if labels:
        store.label_many(labels, source_of(classifier))
    successes, failures = (tuple(name for name in labels if labels[name] is wanted) for wanted in (True, False))
    return Labelling(successes, failures, agreement)


def _by_others(source: str) -> bool:
    return source.partition(":")[0] != SOURCE
