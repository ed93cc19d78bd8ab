"""The batcher: what is decided together, what is dropped, what is cut. Its clock is told the time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import pytest

from steer.decision import Decision, Request
from steer.engine import Engine
from steer.errors import DeadlineError, SpecError, UnavailableError
from steer.observation import Observation
from steer.selection import Selection
from steer.server.batcher import Batcher
from steer.server.costs import CostModel
from steer.server.metrics import Metrics
from tests.client.doubles import FakeClock
from tests.fakes import FakeCritic, FakePolicy

T = TypeVar("T")


def request(seed: int = 0, samples: int = 8, **changes: object) -> Request:
    state = np.random.default_rng(seed).normal(size=(2, 3)).astype(np.float32)
    made = Request(Observation({"state": state}, np.ones(2, np.bool_)), seed=seed, num_samples=samples)
    return replace(made, **changes)  # type: ignore[arg-type]


class GatedEngine(Engine):
    """Remembers its batches, and waits at a gate."""

    def __init__(self) -> None:
        super().__init__(FakePolicy(), FakeCritic())
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.batches: list[list[int]] = []
        self.gate.set()

    def decide(self, requests: Sequence[Request]) -> list[Decision]:
        self.batches.append([r.seed for r in requests])
        self.entered.set()
        assert self.gate.wait(10)
        if len(requests) > 1 and any(r.seed == 666 for r in requests):
            raise SpecError("one of these is bad")
        if requests[0].seed == 666:
            raise SpecError("this one is bad")
        return super().decide(requests)


class Bench:
    def __init__(
        self, deterministic: bool = False, max_batch: int = 16, active: int = 0, max_wait_s: float = 0.002
    ) -> None:
        self.engine, self.clock, self.metrics = GatedEngine(), FakeClock(), Metrics()
        self.batcher = Batcher(
            self.metrics,
            active=lambda: active,
            max_batch=max_batch,
            max_wait_s=max_wait_s,
            deterministic=deterministic,
            clock=self.clock.now,
        )

    def run(self, work: Callable[[Bench], Awaitable[T]]) -> T:
        async def main() -> T:
            serving = asyncio.create_task(self.batcher.run())
            result = await work(self)
            self.batcher.close()
            await serving
            return result

        return asyncio.run(main())

    async def occupied(self) -> asyncio.Task[Decision]:
        """A request that is in the engine until the gate opens, so that the next ones queue up."""
        self.engine.gate.clear()
        first = asyncio.create_task(self.batcher.submit(self.engine, request(1000, samples=2)))
        await asyncio.to_thread(self.engine.entered.wait, 10)
        return first

    async def queued(self, *requests: Request, budget_s: float = 0.0) -> list[asyncio.Task[Decision]]:
        tasks = [asyncio.create_task(self.batcher.submit(self.engine, r, budget_s)) for r in requests]
        await asyncio.sleep(0)
        return tasks


def test_a_batch_decides_as_each_request_would_alone() -> None:
    asked = [request(seed) for seed in range(6)]

    async def work(bench: Bench) -> list[Decision]:
        first = await bench.occupied()
        tasks = await bench.queued(*asked)
        bench.engine.gate.set()
        await first
        return list(await asyncio.gather(*tasks))

    bench = Bench()
    decisions = bench.run(work)
    assert bench.engine.batches[1] == [0, 1, 2, 3, 4, 5]
    alone = Engine(FakePolicy(), FakeCritic())
    for one, decision in zip(asked, decisions, strict=True):
        expected = alone.decide([one])[0]
        np.testing.assert_allclose(decision.candidates, expected.candidates, atol=1e-6)
        assert (decision.chosen, decision.seed) == (expected.chosen, one.seed)


def test_deterministic_is_one_request_per_batch_and_equal_bit_for_bit() -> None:
    asked = [request(seed) for seed in range(4)]

    async def work(bench: Bench) -> list[Decision]:
        first = await bench.occupied()
        tasks = await bench.queued(*asked)
        bench.engine.gate.set()
        await first
        return list(await asyncio.gather(*tasks))

    bench = Bench(deterministic=True)
    decisions = bench.run(work)
    assert bench.engine.batches[1:] == [[0], [1], [2], [3]]
    alone = Engine(FakePolicy(), FakeCritic())
    for one, decision in zip(asked, decisions, strict=True):
        expected = alone.decide([one])[0]
        assert decision.candidates.tobytes() == expected.candidates.tobytes()
        assert decision.scores.tobytes() == expected.scores.tobytes()


@pytest.mark.parametrize(
    "other",
    [
        request(1, samples=4),
        request(1, temperature=0.5),
        request(1, execute=4),
        request(1, committed=np.zeros((1, 3), np.float32), execute=3),
        request(1, selection=Selection(choose="first")),
    ],
)
def test_requests_of_different_buckets_are_not_mixed(other: Request) -> None:
    async def work(bench: Bench) -> None:
        first = await bench.occupied()
        tasks = await bench.queued(request(0), other, request(2))
        bench.engine.gate.set()
        await asyncio.gather(first, *tasks)

    bench = Bench()
    bench.run(work)
    assert bench.engine.batches[1:] == [[0, 2], [1]]


def test_a_batch_has_a_largest_size() -> None:
    async def work(bench: Bench) -> None:
        first = await bench.occupied()
        tasks = await bench.queued(*[request(seed) for seed in range(5)])
        bench.engine.gate.set()
        await asyncio.gather(first, *tasks)

    bench = Bench(max_batch=2)
    bench.run(work)
    assert bench.engine.batches[1:] == [[0, 1], [2, 3], [4]]


def test_a_request_whose_deadline_passed_in_the_queue_is_dropped_with_a_reply() -> None:
    async def work(bench: Bench) -> None:
        first = await bench.occupied()
        (late,) = await bench.queued(request(0), budget_s=0.1)
        (patient,) = await bench.queued(request(1), budget_s=10.0)
        bench.clock.time += 0.2
        bench.engine.gate.set()
        with pytest.raises(DeadlineError, match="the deadline passed after 200 ms in the queue"):
            await late
        await asyncio.gather(first, patient)

    bench = Bench()
    bench.run(work)
    assert bench.engine.batches[1:] == [[1]]
    assert bench.metrics.registry.get_sample_value("steer_dropped_total") == 1


@pytest.mark.parametrize(
    ("budget_s", "kept", "says"),
    [
        (1.0, 32, ()),
        (0.2, 16, ("16 of 32 candidates: 200 ms were left, 32 cost 320 ms",)),
        (0.004, 1, ("the policy alone: 4 ms were left, 32 cost 320 ms",)),
    ],
)
def test_candidates_are_cut_to_what_the_time_allows_and_the_decision_says_so(
    budget_s: float, kept: int, says: tuple[str, ...]
) -> None:
    async def work(bench: Bench) -> Decision:
        for samples in (1, 32):
            bench.batcher.costs.observe(samples, 0.01 * samples)
        return await bench.batcher.submit(bench.engine, request(0, samples=32), budget_s)

    decision = Bench().run(work)
    assert len(decision.candidates) == kept
    assert decision.cuts == says
    assert (decision.scores.size > 0) == (kept > 1)


def test_deterministic_never_cuts() -> None:
    async def work(bench: Bench) -> Decision:
        bench.batcher.costs.observe(32, 10.0)
        return await bench.batcher.submit(bench.engine, request(0, samples=32), 0.1)

    decision = Bench(deterministic=True).run(work)
    assert (len(decision.candidates), decision.cuts) == (32, ())


def test_a_batch_stays_small_enough_for_its_deadlines() -> None:
    async def work(bench: Bench) -> None:
        first = await bench.occupied()
        # The request in the engine has other candidates, so that its cost (no time passes) is another.
        bench.batcher.costs.observe(8, 0.1)
        tasks = await bench.queued(*[request(seed) for seed in range(4)], budget_s=0.25)
        bench.engine.gate.set()
        await asyncio.gather(first, *tasks)

    bench = Bench()
    bench.run(work)
    assert bench.engine.batches[1] == [0, 1]


def test_the_first_waits_for_the_others_and_no_longer() -> None:
    async def work(bench: Bench) -> list[Decision]:
        (first,) = await bench.queued(request(0))
        await asyncio.sleep(0.01)  # it waits: nobody was decided for
        assert not bench.engine.batches
        (second,) = await bench.queued(request(1))
        return list(await asyncio.wait_for(asyncio.gather(first, second), 10))

    # An hour: only the arrival of the second can end the wait.
    bench = Bench(active=2, max_wait_s=3600)
    assert len(bench.run(work)) == 2
    assert bench.engine.batches == [[0, 1]]


def test_only_the_request_at_fault_sees_the_error() -> None:
    async def work(bench: Bench) -> list[Decision | BaseException]:
        first = await bench.occupied()
        tasks = await bench.queued(request(0), request(666), request(2))
        bench.engine.gate.set()
        await first
        return list(await asyncio.gather(*tasks, return_exceptions=True))

    good, bad, fine = Bench().run(work)
    assert isinstance(good, Decision)
    assert isinstance(fine, Decision)
    assert isinstance(bad, SpecError)
    assert str(bad) == "this one is bad"


def test_a_caller_that_goes_away_is_not_decided_for() -> None:
    async def work(bench: Bench) -> None:
        first = await bench.occupied()
        gone, stays = await bench.queued(request(0), request(1))
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        bench.engine.gate.set()
        await asyncio.gather(first, stays)

    bench = Bench()
    bench.run(work)
    assert bench.engine.batches[1:] == [[1]]


def test_closing_answers_what_is_queued_and_takes_no_more() -> None:
    async def work(bench: Bench) -> Decision:
        first = await bench.occupied()
        (queued,) = await bench.queued(request(0))
        bench.batcher.close()
        with pytest.raises(UnavailableError, match="shutting down"):
            await bench.batcher.submit(bench.engine, request(1))
        bench.engine.gate.set()
        await first
        return await queued

    assert Bench().run(work).seed == 0


def test_timings_name_the_queue_and_the_engine() -> None:
    async def work(bench: Bench) -> Decision:
        return await bench.batcher.submit(bench.engine, request(0))

    assert {"queue", "engine", "propose", "score"} <= Bench().run(work).timings_s.keys()


def test_costs_are_interpolated_and_grow_in_proportion_beyond_what_was_measured() -> None:
    costs = CostModel()
    assert costs.estimate(8) == 0
    costs.observe(1, 0.01)
    costs.observe(9, 0.05)
    assert costs.estimate(5) == pytest.approx(0.03)
    assert costs.estimate(18) == pytest.approx(0.1)
    assert costs.affordable(9, 1.0) == 9
    assert costs.affordable(9, 0.045) == 4
    assert costs.affordable(9, 0.0) == 1


def test_costs_follow_a_change() -> None:
    costs = CostModel()
    costs.observe(1, 0.01)
    for _ in range(50):
        costs.observe(1, 0.02)
    assert costs.estimate(1) == pytest.approx(0.02, rel=0.01)
