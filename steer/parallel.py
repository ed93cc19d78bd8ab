"""Work on all cores: a pool of processes that each build their tools once and then do one job after the other.

Contract: results come in the order of the jobs and do not depend on the number of workers. A worker that fails, hangs or dies
ends the run with an error that names the job it was on, never a wait without end. Ctrl-C ends parent and workers.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import structlog

from steer.errors import ConfigError, DeadlineError, SteerError, UnavailableError, revive

Job = TypeVar("Job")
Result = TypeVar("Result")

_log = structlog.get_logger(__name__)
_POLL_S = 1.0
_STOP_S = 5.0


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class _Failure:
    """An error on its way from a worker. `error` names a class of `steer.errors`, empty for any other exception."""

    error: str
    message: str
    trace: str


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    index: int = -1
    job: str = ""
    deadline: float = float("inf")


class WorkerPool(Generic[Job, Result]):
    """Processes that do jobs; a context manager."""

    def __init__(
        self,
        build: Callable[[], Callable[[Job], Result]],
        workers: int = 0,
        timeout_s: float = float("inf"),
        describe: Callable[[Job], str] = repr,
    ) -> None:
        """build: picklable; called once in each worker, returns what does a job (its `close()`, if any, is called in the end).

        workers: processes; 0 for one per core. timeout_s: for one job. describe: names a job in errors.
        """
        if workers < 0:
            raise ConfigError(f"{workers} workers were asked for: give at least 1, or 0 for one per core")
        self._build = build
        self._count = workers or cores()
        self._timeout_s = timeout_s
        self._describe = describe
        self._workers: list[_Worker] = []

    def __enter__(self) -> Self:
        try:
            self._workers = [self._start() for _ in range(self._count)]
            for worker in self._workers:
                self._receive(worker)
        except BaseException:
            self._terminate()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._stop()
        self._terminate()

    @property
    def pids(self) -> list[int]:
        """Process numbers of the workers."""
        return [worker.process.pid for worker in self._workers if worker.process.pid is not None]

    def map(self, jobs: Sequence[Job]) -> Iterator[Result]:
        """Do all jobs; yields their results in order, each as soon as those before it are there. Raises `SteerError`."""
        waiting = deque(enumerate(jobs))
        finished: dict[int, Result] = {}
        following = 0
        for worker in self._workers:
            self._assign(worker, waiting)
        while following < len(jobs):
            for worker in self._ready():
                finished[worker.index] = self._receive(worker)
                self._assign(worker, waiting)
            while following in finished:
                yield finished.pop(following)
                following += 1

    def _start(self) -> _Worker:
        # spawn: a forked child would inherit torch's threads and gRPC's runtime in a broken state.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, self._build), daemon=True)
        process.start()
        # Without this the end of the worker would not close the pipe, and its death would go unseen.
        theirs.close()
        return _Worker(process, ours)

    def _assign(self, worker: _Worker, waiting: deque[tuple[int, Job]]) -> None:
        if not waiting:
            worker.job, worker.deadline = "", float("inf")
            return
        worker.index, job = waiting.popleft()
        worker.job, worker.deadline = self._describe(job), time.monotonic() + self._timeout_s
        try:
            # A tuple, so that None is a job like any other and only the end is not one.
            worker.connection.send((job,))
        except OSError as error:
            raise self._died(worker) from error

    def _ready(self) -> list[_Worker]:
        """Workers with an answer, at most `_POLL_S` later; raises `DeadlineError` for one that hangs."""
        busy = {worker.connection: worker for worker in self._workers if worker.job}
        answered = wait(list(busy), timeout=_POLL_S)
        now = time.monotonic()
        for worker in busy.values():
            if now > worker.deadline and worker.connection not in answered:
                raise DeadlineError(f"{worker.job} took more than {self._timeout_s:g} s: does it ever end?")
        return [worker for connection, worker in busy.items() if connection in answered]

    def _receive(self, worker: _Worker) -> Any:
        try:
            answer = worker.connection.recv()
        except (EOFError, OSError) as error:
            raise self._died(worker) from error
        if isinstance(answer, _Failure):
            raise _revive(answer, worker.job)
        return answer

    def _died(self, worker: _Worker) -> SteerError:
        worker.process.join(_STOP_S)
        during = f"while on {worker.job}" if worker.job else "while loading"
        return UnavailableError(
            f"a worker process died {during} (exit code {worker.process.exitcode}): "
            "run again with fewer workers if memory ran out, or with this one alone to see why"
        )

    def _stop(self) -> None:
        """Ask every worker to close what it holds and leave."""
        for worker in self._workers:
            try:
                worker.connection.send(None)
            except OSError:
                _log.warning("worker already gone", exit_code=worker.process.exitcode)
        for worker in self._workers:
            worker.process.join(_STOP_S)

    def _terminate(self) -> None:
        for worker in self._workers:
            worker.connection.close()
            if worker.process.is_alive():
                worker.process.kill()
            worker.process.join()
        self._workers = []


def _revive(failure: _Failure, job: str) -> SteerError:
    """The worker's error as one of the same class here."""
    if not failure.error:
        _log.error("worker failed", job=job, trace=failure.trace)
    message = f"{job}: {failure.message}" if job else failure.message
    return revive(failure.error, message) or SteerError(message)


def _work(connection: Connection, build: Callable[[], Callable[[Any], Any]]) -> None:
    """A worker's life: build, then do one job after the other until told to stop or the parent is gone."""
    # Ctrl-C goes to the whole process group; the parent alone decides what then happens.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _use_one_thread()
    try:
        work = build()
        connection.send(None)
    except Exception as error:  # noqa: BLE001  it travels to the parent, which raises it
        connection.send(_failure(error))
        return
    _limit_torch()
    try:
        while (message := connection.recv()) is not None:
            connection.send(_answer(work, message[0]))
    except (EOFError, BrokenPipeError):
        return
    finally:
        getattr(work, "close", lambda: None)()


def _answer(work: Callable[[Any], Any], job: Any) -> Any:
    try:
        return work(job)
    except Exception as error:  # noqa: BLE001  it travels to the parent, which raises it
        return _failure(error)


def _failure(error: Exception) -> _Failure:
    trace = traceback.format_exc()
    if isinstance(error, SteerError):
        return _Failure(type(error).__name__, str(error), trace)
    return _Failure("", f"{type(error).__name__}: {error}", trace)


def _use_one_thread() -> None:
    """Before numerical libraries load: the workers are the parallelism, and threads of theirs would only compete."""
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"


def _limit_torch() -> None:
    """A library that was loaded before the variables were set is told directly."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)
