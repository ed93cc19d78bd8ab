"""`Pool`: a bounded number of connections to one server, each with one call at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Generic, Protocol, TypeVar

import structlog

from steer.errors import UnavailableError

_log = structlog.get_logger(__name__)


class Connection(Protocol):
    """What can be kept open and closed."""

    def close(self) -> None: ...


C = TypeVar("C", bound=Connection)
R = TypeVar("R")


class Pool(Generic[C]):
    """Connections are made when they are needed and kept while they work; a call that failed leaves none behind."""

    def __init__(self, connect: Callable[[], C], size: int) -> None:
        self._connect = connect
        self._idle: list[C] = []
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(size, thread_name_prefix="remote")

    def map(self, calls: Sequence[Callable[[C], R]]) -> list[R]:
        """The answers in the order of the calls. When one fails, those that have not begun are not made, and it is raised."""
        if len(calls) == 1:
            return [self._run(calls[0])]
        answers = [self._threads.submit(self._run, call) for call in calls]
        done, _ = wait(answers, return_when=FIRST_EXCEPTION)
        failed = [answer for answer in answers if answer in done and answer.exception() is not None]
        if failed:
            for answer in answers:
                answer.cancel()
            failed[0].result()
        return [answer.result() for answer in answers]

    def close(self) -> None:
        """Close what is idle and take no more calls."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._close_idle()

    def _run(self, call: Callable[[C], R]) -> R:
        """On an idle connection, if there is one; that may have died unnoticed, so then once more on a new one."""
        connection = self._take()
        if connection is not None:
            try:
                return self._on(connection, call)
            except UnavailableError as error:
                _log.info("connection lost, opening another", reason=str(error))
                self._close_idle()
        return self._on(self._connect(), call)

    def _on(self, connection: C, call: Callable[[C], R]) -> R:
        try:
            answer = call(connection)
        except BaseException:
            # A reply that comes later must not be taken for that to another call.
            connection.close()
            raise
        with self._lock:
            self._idle.append(connection)
        return answer

    def _take(self) -> C | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _close_idle(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
