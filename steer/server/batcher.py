"""`Batcher`: collects requests of one bucket for a short time and decides them in one worker thread.

The event loop never runs inference. Rules, in order:

1. a request whose deadline passed while it waited is dropped, with a proper reply;
2. K is chosen before sampling: where the measured cost does not fit into the time left, fewer candidates are proposed,
   down to the policy alone, and the decision says so;
3. requests that then fall into one bucket (version, shapes, K, E, d, temperature) are decided together, the oldest first;
   the first to come waits for others at most `max_wait_s`, and not at all when nobody else is asking;
4. a batch that fails is decided again one by one, so that only the request at fault sees the error.

Deterministic: one request per batch and K as asked, so that an answer depends on nothing but its request.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace

import structlog

from steer.decision import Decision, Request
from steer.engine import Engine
from steer.errors import DeadlineError, UnavailableError
from steer.server.costs import CostModel
from steer.server.metrics import Metrics

_log = structlog.get_logger(__name__)


@dataclass(eq=False)
class _Waiting:
    """A request in the queue; times are those of the batcher's clock."""

    engine: Engine
    request: Request
    rerank: bool
    arrived: float
    deadline: float
    answer: asyncio.Future[Decision]
    cuts: tuple[str, ...] = field(default=())

    @property
    def bucket(self) -> Hashable:
        r = self.request
        shapes = tuple(sorted((key, value.shape, str(value.dtype)) for key, value in r.observation.arrays.items()))
        candidates = None if r.candidates is None else r.candidates.shape
        goal = None if r.task.goal_image is None else r.task.goal_image.shape
        return (
            self.engine,
            self.rerank,
            shapes,
            r.num_samples,
            r.num_committed,
            r.execute,
            r.temperature,
            r.selection.asks_critic,
            candidates,
            goal,
        )

    @property
    def num_candidates(self) -> int:
        return self.request.num_samples if self.request.candidates is None else len(self.request.candidates)


class Batcher:
    """See the module. `submit` from the event loop; `run` is the one task that serves the queue."""

    def __init__(
        self,
        metrics: Metrics,
        *,
        active: Callable[[], int] = lambda: 1,
        max_batch: int = 16,
        max_wait_s: float = 0.002,
        deterministic: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """active: how many clients may be asking right now; more than that is never waited for."""
        self.costs = CostModel()
        self._metrics = metrics
        self._max_batch = 1 if deterministic else max_batch
        self._max_wait_s = 0.0 if deterministic else max_wait_s
        self._deterministic = deterministic
        self._active = active
        self._clock = clock
        self._queue: list[_Waiting] = []
        self._arrival = asyncio.Event()
        self._closing = False
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="engine")

    async def submit(self, engine: Engine, request: Request, budget_s: float = 0.0, rerank: bool = False) -> Decision:
        """The decision of `engine`; raises what it raised, or `DeadlineError` when `budget_s` passed before its turn came."""
        if self._closing:
            raise UnavailableError("the server is shutting down: ask another one, or start it again")
        now = self._clock()
        deadline = now + budget_s if budget_s > 0 else math.inf
        waiting = _Waiting(engine, request, rerank, now, deadline, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._arrival.set()
        try:
            return await waiting.answer
        finally:
            if waiting in self._queue:  # the caller went away
                self._queue.remove(waiting)

    async def run(self) -> None:
        """Serve the queue until `close` was called and it is empty."""
        while self._queue or not self._closing:
            if not self._queue:
                await self._arrived()
            await self._company()
            await self._serve_next()
        self._worker.shutdown()

    def close(self) -> None:
        """Take no more requests; `run` returns once those in the queue are answered."""
        self._closing = True
        self._arrival.set()

    async def _company(self) -> None:
        """Wait until nobody is missing, the batch is full, or the oldest request has waited `max_wait_s`."""
        while self._queue and len(self._queue) < min(self._max_batch, self._active()) and not self._closing:
            left = self._queue[0].arrived + self._max_wait_s - self._clock()
            if left <= 0:
                return
            await self._arrived(left)

    async def _arrived(self, timeout_s: float | None = None) -> None:
        """Return when the next request arrives, when the batcher is closed, or after `timeout_s`."""
        self._arrival.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._arrival.wait(), timeout_s)

    async def _serve_next(self) -> None:
        # A function of its own, so that no batch, and no version with it, is kept until the next one comes.
        batch = self._next_batch()
        if batch:
            await self._decide(batch)

    def _next_batch(self) -> list[_Waiting]:
        """Drop what is too late, choose K for the rest, and take the oldest bucket out of the queue."""
        now = self._clock()
        for waiting in [w for w in self._queue if w.deadline <= now]:
            self._queue.remove(waiting)
            self._metrics.dropped.inc()
            if not waiting.answer.done():
                waited = 1e3 * (now - waiting.arrived)
                waiting.answer.set_exception(
                    DeadlineError(
                        f"the deadline passed after {waited:.0f} ms in the queue: "
                        "allow more time, or use fewer clients per server"
                    )
                )
        if not self._queue:
            return []
        planned = [self._planned(waiting, now) for waiting in self._queue]
        bucket = planned[0].bucket
        batch = [waiting for waiting in planned if waiting.bucket == bucket][: self._max_batch]
        batch = batch[: self._fitting(batch, now)]
        taken = {id(waiting.answer) for waiting in batch}
        self._queue = [waiting for waiting in self._queue if id(waiting.answer) not in taken]
        return batch

    def _planned(self, waiting: _Waiting, now: float) -> _Waiting:
        """The request with as many candidates as the time left allows."""
        request = waiting.request
        if self._deterministic or request.candidates is not None or math.isinf(waiting.deadline):
            return waiting
        left_s = waiting.deadline - now
        affordable = self.costs.affordable(request.num_samples, left_s)
        if affordable == request.num_samples:
            return waiting
        what = f"{affordable} of {request.num_samples} candidates" if affordable > 1 else "the policy alone"
        why = f"{1e3 * left_s:.0f} ms were left, {request.num_samples} cost {1e3 * self.costs.estimate(request.num_samples):.0f} ms"
        return replace(waiting, request=replace(request, num_samples=affordable), cuts=(f"{what}: {why}",))

    def _fitting(self, batch: Sequence[_Waiting], now: float) -> int:
        """How many requests may share a batch without making one of them late; at least the oldest."""
        for size in range(len(batch), 1, -1):
            cost = self.costs.estimate(size * batch[0].num_candidates)
            if all(now + cost <= waiting.deadline for waiting in batch[:size]):
                return size
        return 1

    async def _decide(self, batch: list[_Waiting]) -> None:
        start = self._clock()
        self._metrics.batch_size.observe(len(batch))
        try:
            decisions = await self._in_worker(batch)
        except Exception as error:  # noqa: BLE001 - handed to the callers, whose handler sorts it
            if len(batch) == 1:
                _fail(batch[0], error)
                return
            _log.warning("a batch failed, deciding its requests one by one", size=len(batch), reason=str(error))
            for waiting in batch:
                await self._decide([waiting])
            return
        for waiting, decision in zip(batch, decisions, strict=True):
            self._metrics.cuts.inc(len(waiting.cuts))
            self._metrics.queue_s.observe(start - waiting.arrived)
            timings = {**decision.timings_s, "queue": start - waiting.arrived, "engine": self._clock() - start}
            if not waiting.answer.done():
                waiting.answer.set_result(replace(decision, cuts=decision.cuts + waiting.cuts, timings_s=timings))

    async def _in_worker(self, batch: list[_Waiting]) -> list[Decision]:
        engine = batch[0].engine
        decide = engine.rerank if batch[0].rerank else engine.decide
        requests = [waiting.request for waiting in batch]
        start = self._clock()
        decisions = await asyncio.get_running_loop().run_in_executor(self._worker, decide, requests)
        if not batch[0].rerank:
            self.costs.observe(len(batch) * batch[0].num_candidates, self._clock() - start)
        return decisions


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(error)
