"""The follower's decisions, look by look, over a run that is only in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from steer.engine import Engine
from steer.errors import CheckpointError, StoreError
from steer.server.batcher import Batcher
from steer.server.follow import Follower, Release, begin
from steer.server.guard import Guard, Outcome
from steer.server.metrics import Metrics
from steer.server.residents import Pin, Residents
from tests.fakes import FakeCritic, FakePolicy


class GivenReleases:
    """Versions 0 to 9; some are broken, some refused."""

    def __init__(self, newest: int = 0) -> None:
        self.release = Release(newest, 0.0)
        self.broken: set[int] = set()
        self.reasons: dict[int, str] = {}
        self.played: tuple[Outcome, ...] = ()
        self.loaded: list[int] = []
        self.full = False
        self.damaged = False

    def newest(self) -> Release:
        return self.release

    def load(self, number: int) -> Engine:
        self.loaded.append(number)
        if number in self.broken:
            raise CheckpointError(f"version {number} is broken")
        return Engine(FakePolicy(window=1), FakeCritic())

    def earlier(self, number: int) -> list[int]:
        return list(range(number - 1, -1, -1))

    def refused(self) -> dict[int, str]:
        return self.reasons

    def refuse(self, number: int, why: str) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        self.reasons[number] = why

    def outcomes(self) -> tuple[Outcome, ...]:
        if self.damaged:
            raise StoreError("labels.jsonl line 3 is not a label")
        return self.played

    def publish(self, number: int) -> None:
        self.release = Release(number, self.release.stamp + 1)

    def play(self, version: int, *successes: int) -> None:
        self.played = (*self.played, *(Outcome(version, bool(success)) for success in successes))


class Table:
    """A follower that looks when it is told to."""

    def __init__(self, releases: GivenReleases, guard: Guard | None = Guard()) -> None:  # noqa: B008 - frozen
        self.releases, self.metrics = releases, Metrics()
        self.residents, self._following = begin(releases, guard)
        self.pin = Pin()

    def run(self, work: Callable[[Table], Awaitable[None]]) -> None:
        async def main() -> None:
            batcher = Batcher(self.metrics)
            serving = asyncio.create_task(batcher.run())
            self._follower = Follower(self._following, self.residents, batcher, self.metrics, samples=2)
            await work(self)
            batcher.close()
            await serving

        asyncio.run(main())

    async def look(self, times: int = 1) -> int:
        """The version that is served then."""
        for _ in range(times):
            await self._follower.look()
        return self.residents.current.number

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


def test_a_broken_version_is_tried_once_per_publication() -> None:
    releases = GivenReleases()

    async def work(table: Table) -> None:
        releases.broken.add(1)
        releases.publish(1)
        assert await table.look(3) == 0
        assert releases.loaded == [0, 1]
        releases.broken.clear()
        assert await table.look() == 0
        releases.publish(1)
        assert await table.look() == 1
        assert table.count("steer_refused_versions_total", why="broken") == 1
        assert table.count("steer_swaps_total") == 1

    Table(releases).run(work)


def test_only_the_newest_of_several_is_loaded_and_only_once_there_is_room() -> None:
    releases = GivenReleases()

    async def work(table: Table) -> None:
        with table.residents.deciding(table.pin, 0):
            releases.publish(1)
            assert await table.look() == 1
            releases.publish(2)
            releases.publish(3)
            assert await table.look(2) == 1
            assert table.count("steer_resident_versions") == 2
        with table.residents.deciding(table.pin, 1):
            assert await table.look() == 3
        assert releases.loaded == [0, 1, 3]

    Table(releases).run(work)


def worse(releases: GivenReleases, now: int) -> None:
    """Version 0 did well, and `now` does not."""
    releases.play(0, *[1, 1, 1, 1, 0] * 10)
    releases.play(now, *[0] * 6)


def test_a_full_disk_does_not_keep_a_worse_version_in_service() -> None:
    releases = GivenReleases()
    releases.full = True

    async def work(table: Table) -> None:
        releases.publish(1)
        assert await table.look() == 1
        worse(releases, 1)
        assert await table.look(2) == 0
        assert releases.reasons == {}
        assert table.count("steer_refused_versions_total", why="worse") == 1

    Table(releases).run(work)


def test_it_goes_back_to_what_was_played_and_can_be_loaded() -> None:
    releases = GivenReleases(newest=4)
    worse(releases, 4)
    releases.play(2, 1)
    releases.played = tuple(sorted(releases.played, key=lambda outcome: outcome.version))

    async def work(table: Table) -> None:
        releases.broken.add(2)
        assert await table.look(2) == 0  # 3 was never played, 2 is broken
        assert list(releases.reasons) == [4]
        releases.publish(5)
        assert await table.look() == 5

    Table(releases).run(work)


def test_the_version_that_it_went_back_to_is_not_judged_again() -> None:
    releases = GivenReleases()

    async def work(table: Table) -> None:
        releases.publish(1)
        await table.look()
        worse(releases, 1)
        assert await table.look() == 0
        releases.play(0, *[0] * 20)
        assert await table.look(2) == 0
        assert list(releases.reasons) == [1]

    Table(releases).run(work)


def test_a_person_may_take_a_refusal_back_and_is_not_contradicted() -> None:
    releases = GivenReleases()

    async def work(table: Table) -> None:
        releases.publish(1)
        await table.look()
        worse(releases, 1)
        assert await table.look(2) == 0
        del releases.reasons[1]
        assert await table.look() == 1
        releases.play(1, 0)
        assert await table.look(2) == 1
        assert releases.reasons == {}
        # Another version 1: the run was started anew.
        releases.publish(1)
        assert await table.look() == 1
        releases.play(1, 0)
        assert await table.look(2) == 0

    Table(releases).run(work)


def test_what_was_refused_at_the_start_may_be_taken_back() -> None:
    releases = GivenReleases(newest=1)
    releases.reasons[1] = "drops the cube"

    async def work(table: Table) -> None:
        assert await table.look() == 0
        releases.reasons.clear()
        assert await table.look() == 1
        assert releases.loaded == [0, 1]

    Table(releases).run(work)


@pytest.mark.parametrize("started", [True, False])
def test_behind_a_broken_version_the_one_before_is_judged_and_may_be_refused(started: bool) -> None:
    releases = GivenReleases(newest=2 if started else 1)
    releases.broken.add(2)

    async def work(table: Table) -> None:
        if not started:
            releases.publish(2)
        assert await table.look() == 1
        worse(releases, 1)
        assert await table.look() == 0
        assert list(releases.reasons) == [1]
        assert releases.loaded.count(2) == 1

    Table(releases).run(work)


def test_a_person_may_refuse_what_is_served_behind_a_broken_version() -> None:
    releases = GivenReleases(newest=1)

    async def work(table: Table) -> None:
        releases.broken.add(2)
        releases.publish(2)
        assert await table.look() == 1
        releases.reasons[1] = "drops the cube"
        assert await table.look() == 0

    Table(releases).run(work)


def test_versions_change_while_their_outcomes_cannot_be_read() -> None:
    releases = GivenReleases()
    releases.damaged = True

    async def work(table: Table) -> None:
        releases.publish(1)
        assert await table.look() == 1
        releases.reasons[1] = "drops the cube"
        assert await table.look() == 0
        releases.publish(2)
        assert await table.look() == 2
        worse(releases, 2)
        releases.damaged = False
        assert await table.look() == 0

    Table(releases).run(work)


def test_without_an_earlier_version_a_refused_one_is_served_on() -> None:
    releases = GivenReleases()

    async def work(table: Table) -> None:
        releases.reasons[0] = "a person says so"
        assert await table.look(2) == 0
        releases.publish(1)
        assert await table.look() == 1

    Table(releases).run(work)


def test_without_a_guard_nothing_is_rolled_back() -> None:
    releases = GivenReleases(newest=1)
    worse(releases, 1)

    async def work(table: Table) -> None:
        assert await table.look(2) == 1

    Table(releases, guard=None).run(work)


def test_it_begins_with_the_newest_version_that_can_be_served() -> None:
    releases = GivenReleases(newest=3)
    releases.broken, releases.reasons = {3}, {2: "worse"}
    residents, following = begin(releases)
    assert isinstance(residents, Residents)
    assert (residents.current.number, following.tried) == (1, releases.release)
    releases.broken = {0, 1, 3}
    with pytest.raises(CheckpointError, match="version 3 is broken"):
        begin(releases)
    releases.reasons = dict.fromkeys(range(4), "worse")
    with pytest.raises(CheckpointError, match="every version of the run was refused"):
        begin(releases)
