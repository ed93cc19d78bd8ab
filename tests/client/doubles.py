"""A clock that is told the time, and pools that answer when they are told to."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from steer.client.clock import Stop
from steer.decision import Decision, Request
from steer.engine import Engine
from steer.observation import ObservationSpec
from tests.fakes import FakeCritic, FakePolicy


class FakeClock:
    """Time passes only in `sleep_until`; `at` runs things at a time."""

    def __init__(self) -> None:
        self.time = 100.0
        self._later: list[tuple[float, Callable[[], None]]] = []

    def now(self) -> float:
        return self.time

    def at(self, time: float, what: Callable[[], None]) -> None:
        self._later.append((time, what))

    def sleep_until(self, deadline: float, stop: Stop) -> None:
        self.time = max(self.time, deadline)
        for due, what in list(self._later):
            if due <= self.time + 1e-9:
                self._later.remove((due, what))
                what()


class InlinePool(Executor):
    """Answers while it is asked."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - what a pool does
            future.set_exception(error)
        return future


class ManualPool(Executor):
    """Answers when `answer` is called."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.waiting.append((future, lambda: fn(*args, **kwargs)))
        return future

    def answer(self) -> None:
        future, work = self.waiting.pop(0)
        try:
            future.set_result(work())
        except Exception as error:  # noqa: BLE001 - what a pool does
            future.set_exception(error)


class FakeSteering:
    """The fake engine, with every request kept; raises `fail` while it is set."""

    def __init__(self, engine: Engine | None = None) -> None:
        self.engine = engine or Engine(FakePolicy(window=1), FakeCritic())
        self.requests: list[Request] = []
        self.places: list[tuple[int, int]] = []
        self.fail: Exception | None = None
        self.change: Callable[[Decision], Decision] = lambda decision: decision

    @property
    def observation(self) -> ObservationSpec:
        return self.engine.observation

    @property
    def horizon(self) -> int:
        return self.engine.horizon

    def locate(self, episode: int, step: int) -> None:
        self.places.append((episode, step))

    def infer(self, request: Request) -> Decision:
        self.requests.append(request)
        if self.fail is not None:
            raise self.fail
        return self.change(self.engine.decide([request])[0])

    def close(self) -> None: ...
