"""Episodes on all cores: an ordered map over worker processes that each build their tools once.

Results come in the order of the items, whatever the number of workers, so that a run does not depend on the machine. A worker
that dies is an error that names the item it was on, never a hang.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from steer.errors import RobotError

Item = TypeVar("Item")
Result = TypeVar("Result")

# Work handed out ahead per worker: enough to keep all busy, little enough to stop soon.
_AHEAD = 2

_worker: Callable[[Any], Any] | None = None


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ordered_map(
    make_worker: Callable[[], Callable[[Item], Result]], items: Sequence[Item], workers: int | None = None
) -> Iterator[Result]:
    """Yield `make_worker()(item)` for each item, in order.

    make_worker: picklable (a module's function or a `functools.partial` of one); called once in each process.
    workers: processes; None for all cores. With one, everything runs here.
    """
    count = min(cores() if workers is None else workers, len(items))
    if count <= 1:
        work = make_worker() if items else None
        for item in items:
            assert work is not None
            yield work(item)
        return
    # spawn: a forked child would inherit torch's threads and the gRPC runtime in a broken state.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, context, _start, (make_worker,)) as pool:
        pending: deque[tuple[Item, Future[Result]]] = deque()
        try:
            for item in items:
                pending.append((item, pool.submit(_work, item)))
                if len(pending) > _AHEAD * count:
                    yield _result(*pending.popleft())
            while pending:
                yield _result(*pending.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _result(item: Item, future: Future[Result]) -> Result:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise RobotError(
            f"a worker process died at or before {item!r}: out of memory or killed; what was done is kept"
        ) from error


def _start(make_worker: Callable[[], Callable[[Any], Any]]) -> None:
    global _worker
    _worker = make_worker()


def _work(item: Any) -> Any:
    assert _worker is not None
    return _worker(item)
