"""`steer label STORE`: say of recorded episodes whether they succeeded, by hand or by a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console
from rich.table import Table

from steer.data.episode import EpisodeRecord
from steer.data.store import EpisodeStore
from steer.errors import ConfigError

if TYPE_CHECKING:
    from steer.data.labelling import Agreement, Which

_Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]


@dataclass(frozen=True, kw_only=True)
class Label:
    """Label episodes: EPISODE... with --success or --failure and --source, or many at once with --classifier; else list them.

    Labels lie over what was recorded, which stays as it was; the last word about an episode holds.
    """

    store: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="STORE")]
    """Episode store."""
    episodes: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="EPISODE")] = ()
    """Ids (000003-000/7), or numbers in the store's order; all unless given, where that makes sense."""
    success: _Flag = False
    """They succeeded."""
    failure: _Flag = False
    """They failed."""
    source: str = ""
    """Who says so: a person's name, "video", ..."""
    classifier: str = ""
    """Checkpoint folder of a success classifier (steer train reward); the labels' source is its version."""
    unlabelled: _Flag = False
    """Only episodes of which nobody has said anything: what --classifier labels by default, and what may be listed."""
    all: _Flag = False
    """With --classifier: label every episode, over what others said."""
    dry_run: _Flag = False
    """With --classifier: print the agreement with the labels that are there, and write nothing."""
    allow_unready: _Flag = False
    """Label with a classifier whose training said that it may not."""

    def run(self) -> None:
        store = EpisodeStore.open(self.store)
        chosen = [_find(store.records(), text) for text in self.episodes]
        if self.classifier:
            self._by_classifier(store, chosen or None)
        elif self.success or self.failure or self.source:
            self._by_hand(store, chosen)
        else:
            self._list(store, chosen or range(len(store)))

    def _list(self, store: EpisodeStore, chosen: Sequence[int]) -> None:
        if self.all or self.dry_run:
            raise ConfigError("--all and --dry-run go with --classifier: give one")
        table = Table("", "episode", "steps", "success", "who says so", "who acted", "stopped by")
        records = store.records()
        for index in chosen:
            record = records[index]
            if self.unlabelled and record.success is not None:
                continue
            said = {True: "yes", False: "no", None: ""}[record.success]
            stopped = str(record.info.get("stopped_by", ""))
            table.add_row(
                str(index), record.id, str(record.length), said, record.success_source, record.source, stopped
            )
        Console(soft_wrap=True).print(table)

    def _by_hand(self, store: EpisodeStore, chosen: list[int]) -> None:
        if self.success == self.failure or not self.source or not chosen:
            raise ConfigError("to label by hand give EPISODE..., one of --success and --failure, and --source NAME")
        if self.all or self.unlabelled or self.dry_run:
            raise ConfigError("--all, --unlabelled and --dry-run go with --classifier: name the episodes instead")
        records = store.records()
        store.label_many({records[index].id: self.success for index in chosen}, self.source)
        _say(f"{_episodes(len(chosen))} labelled as {'success' if self.success else 'failure'} by {self.source}")

    def _by_classifier(self, store: EpisodeStore, chosen: list[int] | None) -> None:
        from steer.classifier import load_classifier, source_of
        from steer.data.labelling import label_store
        from steer.progress import ProgressBar

        which = self._which()
        self._check_ready()
        classifier = load_classifier(self.classifier)
        with ProgressBar() as bar:
            task = bar.add_task("label", total=None)
            done = label_store(
                store,
                classifier,
                which,
                chosen,
                lambda at, total: bar.update(task, completed=at, total=total),
            )
        _print_agreement(done.agreement)
        if which != "none":
            counts = f"{_episodes(len(done.successes))} labelled as success and {len(done.failures)} as failure"
            _say(f"{counts} by {source_of(classifier)}")

    def _which(self) -> Which:
        if self.success or self.failure or self.source:
            raise ConfigError(
                "--success, --failure and --source are for labels by hand: leave them out, or --classifier"
            )
        if self.all + self.unlabelled + self.dry_run > 1:
            raise ConfigError("--all, --unlabelled and --dry-run exclude each other: give one")
        if self.dry_run:
            return "none"
        return "all" if self.all else "unlabelled"

    def _check_ready(self) -> None:
        from steer.classifier import classifier_verdict

        verdict = classifier_verdict(self.classifier)
        if verdict is not None and not verdict["may_label"] and not (self.allow_unready or self.dry_run):
            raise ConfigError(
                f"classifier {self.classifier} may not label: {'; '.join(verdict['reasons'])}. Train it on more labelled episodes, "
                "or use it all the same with --allow-unready"
            )


def _find(records: tuple[EpisodeRecord, ...], text: str) -> int:
    """The number of an episode by its id, or by its number."""
    if text.isdecimal() and int(text) < len(records):
        return int(text)
    for index, record in enumerate(records):
        if record.id == text:
            return index
    raise ConfigError(f"no episode {text!r} among the {len(records)} of the store: steer label STORE lists them")


def _print_agreement(agreement: Agreement) -> None:
    """Counts against the labels of others."""
    if not agreement.episodes:
        _say("no episode has a label of anybody else to compare with")
        return
    table = Table(title=f"Agreement with {agreement.episodes} labels of others", title_justify="left")
    table.add_column("they said")
    table.add_column("success", justify="right")
    table.add_column("failure", justify="right")
    table.add_row("success", str(agreement.true_success), str(agreement.false_failure))
    table.add_row("failure", str(agreement.false_success), str(agreement.true_failure))
    Console(soft_wrap=True).print(table)


def _episodes(count: int) -> str:
    return f"{count} episode{'' if count == 1 else 's'}"


def _say(text: str) -> None:
    Console(soft_wrap=True).print(text, markup=False, highlight=False)
