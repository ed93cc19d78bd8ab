"""`EpisodeStore`: a folder of immutable segments that grows while it is read.

    store.json               format and the robot's spec: every episode conforms to it
    segments/<n>-<slot>/     whole episodes (`steer.data.segment`); names that start with '.' are not published
    writers/<slot>.lock      held by living writers (`steer.data.writer`)
    labels.jsonl             labels that came later (`steer.data.labels`)
    candidates/              samples of policies at stored frames (`steer.data.candidates`)
    identity                 tells stores apart, where segments travel between them (`steer.data.origin`)
    incoming/, uploads/      segments on their way here (`steer.server.incoming`) and from here (`steer.client.uploads`)

`open` also reads a Diffusion Policy replay buffer (`steer.data.replay_buffer`).
"""

from __future__ import annotations

import json
import logging
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from steer.data.episode import Episode, EpisodeRecord
from steer.data.labels import Label, append_labels, read_labels
from steer.data.replay_buffer import ReplayBuffer, is_replay_buffer
from steer.data.segment import Segment
from steer.data.writer import EpisodeWriter, published
from steer.errors import SpecError, StoreError
from steer.files import fsync_path
from steer.robot import RobotSpec
from steer.serial import from_json, to_json

logger = logging.getLogger(__name__)

FORMAT = 1
_ASIDE = ".store."


class SegmentReader(Protocol):
    """What the store reads: a name, records, and episodes by place."""

    @property
    def name(self) -> str: ...

    @property
    def records(self) -> tuple[EpisodeRecord, ...]: ...

    def episodes(self, indices: Sequence[int] | None = None) -> Iterator[Episode]: ...


class EpisodeStore:
    """Episodes in a fixed order: an index stays valid as the store grows, because `refresh` only appends.

    A fresh `open` sorts segments by name; with a single writer that is the order of writing.
    """

    def __init__(
        self,
        path: Path,
        robot: RobotSpec,
        fixed: Sequence[SegmentReader] | None,
        skip_broken: bool,
        decode: bool = True,
    ) -> None:
        """Use `create` or `open`. fixed: the segments of a store that cannot grow or be written.

        decode: read all of a segment to find out whether it is broken, not only its sizes.
        """
        self.path = path
        self.robot = robot
        self.broken: tuple[str, ...] = ()
        """Names of segments that were passed over (`skip_broken`)."""
        self._fixed = fixed
        self._skip_broken = skip_broken
        self._decode = decode
        self._segments: list[SegmentReader] = []
        self._places: list[tuple[SegmentReader, int]] = []
        self._labels: dict[str, Label] = {}
        self.refresh()

    @classmethod
    def create(
        cls, path: Path | str, robot: RobotSpec, exist_ok: bool = False, skip_broken: bool = False
    ) -> EpisodeStore:
        """A new, empty store for one robot. exist_ok: open the one that is there, if it is the same robot's.

        skip_broken: to go on recording beside segments that lost files or were cut, logged and named in `broken`.
        """
        path = Path(path)
        # In this order, because another process may make the store, and fill it, in between.
        strangers = path.is_dir() and not all(map(_is_leftover, path.iterdir()))
        if (path / "store.json").exists():
            return cls._open_same(path, robot, exist_ok, skip_broken)
        if strangers:
            raise StoreError(f"{path} is neither empty nor an episode store: choose another folder")
        aside = path / f"{_ASIDE}{uuid.uuid4().hex[:8]}"
        try:
            (path / "segments").mkdir(parents=True, exist_ok=True)
            aside.write_text(json.dumps({"format": FORMAT, "robot": to_json(robot)}, indent=2))
            fsync_path(aside)
            # A link, unlike a rename, fails when another process was first.
            os.link(aside, path / "store.json")
            fsync_path(path)
        except FileExistsError:
            return cls._open_same(path, robot, exist_ok, skip_broken)
        except OSError as error:
            raise StoreError(f"cannot create an episode store in {path} ({error})") from error
        finally:
            aside.unlink(missing_ok=True)
        return cls(path, robot, None, skip_broken=False)

    @classmethod
    def open(cls, path: Path | str, skip_broken: bool = False, robot: RobotSpec | None = None) -> EpisodeStore:
        """A store, or read-only a Diffusion Policy zarr v2 replay buffer (a folder, or a .zarr.zip).

        skip_broken: pass over damaged segments (every one is decoded to find out), logged and named in `broken`.
        robot: for a replay buffer, which says nothing of its robot, the spec to use instead of a draft from its data.
        """
        path = Path(path)
        if is_replay_buffer(path):
            buffer = ReplayBuffer(path, robot)
            return cls(path, buffer.robot, [buffer], skip_broken)
        return cls(path, stored_robot(path), None, skip_broken)

    @classmethod
    def _open_same(cls, path: Path, robot: RobotSpec, exist_ok: bool, skip_broken: bool) -> EpisodeStore:
        if not exist_ok:
            raise StoreError(f"{path} is an episode store already: open it to add to it, or choose another folder")
        held = stored_robot(path)
        if held != robot:
            mine, theirs = to_json(held), to_json(robot)
            fields = [name for name in mine if mine[name] != theirs[name]]
            raise SpecError(
                f"{path} holds episodes of robot {held.name!r}, which differs in {fields}: use another store"
            )
        return cls(path, held, None, skip_broken, decode=False)

    def __len__(self) -> int:
        """Episodes seen by the last `refresh`."""
        return len(self._places)

    @property
    def segments(self) -> tuple[SegmentReader, ...]:
        return tuple(self._segments)

    @property
    def sidecars(self) -> Path:
        """The folder for what is derived from the store: the store's own, or one beside a read-only buffer."""
        return self.path if self._fixed is None else self.path.with_name(f"{self.path.name}.steer")

    def refresh(self) -> int:
        """See what was published and labelled since; returns the number of new episodes."""
        before = len(self._places)
        known = {segment.name for segment in self._segments} | set(self.broken)
        for segment in self._fixed or ():
            if segment.name not in known:
                self._take(segment)
        if self._fixed is None:
            for path in self._published():
                if path.name not in known:
                    self._open_segment(path)
            self._labels = read_labels(self.path / "labels.jsonl")
        return len(self._places) - before

    def records(self) -> tuple[EpisodeRecord, ...]:
        """One per episode, in index order, with the labels of the last `refresh`."""
        return tuple(self._record(segment.records[place]) for segment, place in self._places)

    def episode(self, index: int) -> Episode:
        """The episode at this place of `records`."""
        return next(self.episodes([index]))

    def episodes(self, indices: Sequence[int] | None = None) -> Iterator[Episode]:
        """Episodes in the order asked for (all by default); neighbours of one segment are read together."""
        wanted = [self._place(index) for index in (range(len(self)) if indices is None else indices)]
        at = 0
        while at < len(wanted):
            segment = wanted[at][0]
            run = []
            while at < len(wanted) and wanted[at][0] is segment:
                run.append(wanted[at][1])
                at += 1
            for place, episode in zip(run, segment.episodes(run), strict=True):
                record = self._record(segment.records[place])
                yield replace(episode, success=record.success, success_source=record.success_source)

    def writer(self, episodes_per_segment: int = 50) -> EpisodeWriter:
        """Adds episodes; use it as a context manager. What it publishes is seen after `refresh`."""
        self._check_writable()
        return EpisodeWriter(self.path, self.robot, episodes_per_segment)

    def label(self, episode_id: str, success: bool, source: str) -> None:
        """Say of a stored episode whether it succeeded, and who says so ("key", "classifier", ...); the last word holds."""
        self.label_many({episode_id: success}, source)

    def label_many(self, successes: Mapping[str, bool], source: str) -> None:
        """Say it of many episodes, by their ids; raises `StoreError` before anything is written where one is unknown."""
        self._check_writable()
        if not source:
            raise SpecError(f"{len(successes)} labels have no source: say who labelled")
        unknown = set(successes).difference(segment.records[place].id for segment, place in self._places)
        if unknown:
            raise StoreError(f"{self.path} has no episodes {sorted(unknown)}: refresh, and take ids from records()")
        self._labels |= append_labels(self.path / "labels.jsonl", successes, source)

    def _record(self, record: EpisodeRecord) -> EpisodeRecord:
        label = self._labels.get(record.id)
        return record if label is None else label.over(record)

    def _place(self, index: int) -> tuple[SegmentReader, int]:
        if not -len(self) <= index < len(self):
            raise StoreError(f"there is no episode {index}: the store has {len(self)}; refresh, if it has grown")
        return self._places[index]

    def _published(self) -> list[Path]:
        try:
            return published(self.path)
        except OSError as error:
            raise StoreError(
                f"the segments of {self.path} cannot be listed ({error}): check that the store is there and readable"
            ) from error

    def _open_segment(self, path: Path) -> None:
        try:
            segment = Segment(path)
            if self._skip_broken and self._decode:
                segment.verify()
        except StoreError as error:
            if not self._skip_broken:
                raise
            self.broken += (path.name,)
            logger.warning("passing over a segment (%d so far): %s", len(self.broken), error)
            return
        self._take(segment)

    def _take(self, segment: SegmentReader) -> None:
        self._segments.append(segment)
        self._places += [(segment, place) for place in range(len(segment.records))]

    def _check_writable(self) -> None:
        if self._fixed is not None:
            raise StoreError(
                f"{self.path} is a replay buffer, opened read-only: convert it with `steer convert` to write"
            )


def _is_leftover(item: Path) -> bool:
    """Is it something that `create` makes before `store.json`, killed or still at work?"""
    return item.name.startswith(_ASIDE) or (item.name == "segments" and item.is_dir() and not any(item.iterdir()))


def stored_robot(path: Path) -> RobotSpec:
    """The robot of the store at `path`, without opening its segments. Raises `StoreError` where there is no store."""
    try:
        content = json.loads((path / "store.json").read_text())
    except FileNotFoundError as error:
        raise StoreError(
            f"{path} is not an episode store (no store.json) and not a replay buffer: check the path"
        ) from error
    except (OSError, ValueError) as error:
        raise StoreError(f"{path / 'store.json'} cannot be read ({error}): restore it from a copy") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else None
        raise StoreError(f"{path} has format {found}, this version reads {FORMAT}: upgrade steer, or convert the store")
    return from_json(RobotSpec, content.get("robot"), f"{path / 'store.json'} robot")
