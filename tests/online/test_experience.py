"""What several learner processes see of a store that grows under them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator

from steer.data.store import EpisodeStore
from steer.errors import StoreError
from steer.online.config import OnlineConfig
from steer.online.experience import Experience
from steer.online.processes import Processes
from steer.online.proposals import Proposals
from steer.online.store import online_store
from tests.fakes import ROBOT, FakePolicy
from tests.online.toys import make_episode


class Second(Processes):
    """Not the first process: what that one tells is made when it is asked for."""

    def __init__(self, tells: Callable[[], Any]) -> None:
        super().__init__(Accelerator(cpu=True))
        self._tells = tells

    @property
    def first(self) -> bool:
        return False

    def told(self, value: Any) -> Any:
        return self._tells()


def experience(store: Path, tells: Callable[[], Any]) -> Experience:
    config = OnlineConfig(offline_share=0.0, base_samples=2, student_samples=2)
    proposals = Proposals(FakePolicy(window=1), store.parent / "proposals", config)
    return Experience(online_store(store, ROBOT), None, proposals, config, Second(tells))


def add(store: EpisodeStore, seeds: Sequence[int]) -> None:
    with store.writer(episodes_per_segment=1) as writer:
        for seed in seeds:
            writer.add(make_episode(seed, success=True))
    store.refresh()


def test_what_is_published_between_two_looks_is_seen_by_both(tmp_path: Path) -> None:
    first = EpisodeStore.create(tmp_path / "s", ROBOT)

    def tells() -> Any:
        # Published after the second process looked, before the first did.
        add(first, [len(first)])
        return {record.id: record for record in first.records()}

    second = experience(first.path, tells)
    second.refresh()

    assert second.beyond([]) == [record.id for record in first.records()]
    taken = second.take(0, second.beyond([]), lambda: FakePolicy(window=1))
    assert taken.frames.ids == tuple(record.id for record in first.records())


def test_what_the_first_process_alone_can_read_is_an_error(tmp_path: Path) -> None:
    first = EpisodeStore.create(tmp_path / "s", ROBOT)

    def tells() -> Any:
        add(first, [len(first)])
        for part in (path for path in first.path.rglob("*") if path.is_file() and path.stat().st_size > 100):
            if "segments" in part.parts:
                part.write_bytes(part.read_bytes()[:50])
        return {record.id: record for record in first.records()}

    with pytest.raises(StoreError, match="let all processes see one disk"):
        experience(first.path, tells)


def test_the_first_process_makes_what_is_on_the_disk_once() -> None:
    made = iter(["once"])
    assert Processes(Accelerator(cpu=True)).after_first(lambda: next(made)) == "once"
