"""`Runner`: rollouts on all cores, one process per worker, each with its own environment and models.

Contract: results come in the order of the jobs and do not depend on the number of workers. A worker that fails or dies
ends the run with an error that names the seed it was playing. Knows nothing of what is compared with what.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Self

import structlog

from steer.errors import ConfigError, DeadlineError, SteerError, UnavailableError
from steer.evaluation.rollout import Rollout, RolloutSettings, rollout
from steer.evaluation.setup import Bench, Facts

_log = structlog.get_logger(__name__)
_POLL_S = 1.0
_STOP_S = 5.0

Progress = Callable[[int, int], None]
"""Called with (episodes played, episodes in all)."""


@dataclass(frozen=True)
class Job:
    """One episode to play."""

    seed: int
    settings: RolloutSettings


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
    seed: int | None = None
    deadline: float = float("inf")


class Runner:
    """A pool of workers; use it as a context manager. `facts` says what the workers loaded."""

    def __init__(self, build: Callable[[], Bench], workers: int = 0, episode_timeout_s: float = 900.0) -> None:
        """build: picklable; called once in each worker. workers: 0 takes one per core."""
        if workers < 0:
            raise ConfigError(f"{workers} workers were asked for: give at least 1, or 0 for one per core")
        self._build = build
        self._count = workers or len(os.sched_getaffinity(0))
        self._timeout_s = episode_timeout_s
        self._workers: list[_Worker] = []
        self.facts: Facts

    def __enter__(self) -> Self:
        try:
            self._workers = [self._start() for _ in range(self._count)]
            loaded = [self._receive(worker) for worker in self._workers]
        except BaseException:
            self._terminate()
            raise
        self.facts = loaded[0]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._stop()
        self._terminate()

    def run(self, jobs: Sequence[Job], progress: Progress | None = None) -> list[Rollout]:
        """Play all jobs; the results are in their order. Raises `SteerError` naming the seed that failed."""
        results: list[Rollout | None] = [None] * len(jobs)
        waiting = deque(enumerate(jobs))
        done = 0
        for worker in self._workers:
            self._assign(worker, waiting)
        while done < len(jobs):
            for worker in self._ready():
                index = worker.index
                results[index] = self._receive(worker)
                self._assign(worker, waiting)
                done += 1
                if progress is not None:
                    progress(done, len(jobs))
        return [result for result in results if result is not None]

    def _start(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, self._build), daemon=True)
        process.start()
        # Without this the end of the worker would not close the pipe, and its death would go unseen.
        theirs.close()
        return _Worker(process, ours)

    def _assign(self, worker: _Worker, waiting: deque[tuple[int, Job]]) -> None:
        if not waiting:
            worker.seed, worker.deadline = None, float("inf")
            return
        worker.index, job = waiting.popleft()
        worker.seed, worker.deadline = job.seed, time.monotonic() + self._timeout_s
        try:
            worker.connection.send(job)
        except OSError as error:
            raise self._died(worker) from error

    def _ready(self) -> list[_Worker]:
        """Workers with an answer, at most `_POLL_S` later; raises `DeadlineError` for one that hangs."""
        busy = {worker.connection: worker for worker in self._workers if worker.seed is not None}
        answered = wait(list(busy), timeout=_POLL_S)
        now = time.monotonic()
        for worker in busy.values():
            if now > worker.deadline and worker.connection not in answered:
                raise DeadlineError(
                    f"the episode of seed {worker.seed} took more than {self._timeout_s:g} s: does it ever end?"
                )
        return [worker for connection, worker in busy.items() if connection in answered]

    def _receive(self, worker: _Worker) -> Any:
        try:
            answer = worker.connection.recv()
        except (EOFError, OSError) as error:
            raise self._died(worker) from error
        if isinstance(answer, _Failure):
            raise _revive(answer, worker.seed)
        return answer

    def _died(self, worker: _Worker) -> SteerError:
        worker.process.join(_STOP_S)
        during = "while loading" if worker.seed is None else f"while playing the episode of seed {worker.seed}"
        return UnavailableError(
            f"a worker process died {during} (exit code {worker.process.exitcode}): "
            "run again with fewer workers if memory ran out, or with this seed alone to see why"
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


def _revive(failure: _Failure, seed: int | None) -> SteerError:
    """The worker's error as one of the same class here."""
    if not failure.error:
        _log.error("worker failed", seed=seed, trace=failure.trace)
    classes: dict[str, type[SteerError]] = {cls.__name__: cls for cls in SteerError.__subclasses__()}
    cls = classes.get(failure.error, SteerError)
    # Not through the constructor: `MissingExtraError` builds its message from other arguments.
    error = cls.__new__(cls)
    error.args = (failure.message if seed is None else f"episode of seed {seed}: {failure.message}",)
    return error


def _work(connection: Connection, build: Callable[[], Bench]) -> None:
    """A worker's life: build, then play one job after the other until told to stop or the parent is gone."""
    # Ctrl-C goes to the whole process group; the parent alone decides what then happens.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _use_one_thread()
    try:
        bench = build()
        connection.send(bench.facts)
    except Exception as error:  # noqa: BLE001  # the parent raises it
        connection.send(_failure(error))
        return
    _limit_torch()
    try:
        _serve(connection, bench)
    except (EOFError, BrokenPipeError):
        return
    finally:
        bench.close()


def _serve(connection: Connection, bench: Bench) -> None:
    while (job := connection.recv()) is not None:
        try:
            answer: Rollout | _Failure = rollout(bench.environment, bench.steering, job.seed, job.settings)
        except Exception as error:  # noqa: BLE001  # the parent raises it
            answer = _failure(error)
        connection.send(answer)


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
