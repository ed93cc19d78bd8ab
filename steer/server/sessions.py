"""Sessions: who asks, under which settings, and the last window of frames.

A session lives in memory only and ends when it has not been used for `idle_timeout_s`. Requests of one session are ordered by
chunk, episode and step; one that comes late is refused, so that nobody acts on an answer to an old question.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from steer import wire
from steer.decision import Request
from steer.errors import SessionError, SpecError, UnavailableError
from steer.observation import Observation, ObservationSpec
from steer.server.residents import Pin
from steer.spec import Array
from steer.v1 import steering_pb2
from steer.wire import Execution


@dataclass
class Session:
    """One robot's conversation."""

    id: str
    robot: str
    execution: Execution
    spec: ObservationSpec
    last_used: float
    chunk: int = 0
    place: tuple[int, int] = (0, 0)
    window: Observation | None = field(default=None, repr=False)
    pin: Pin = field(default_factory=Pin, repr=False)

    def request(self, message: steering_pb2.InferRequest) -> Request:
        """The complete request, its history rebuilt; raises `SessionError` when it is late, `SpecError` when it is malformed."""
        self._check_order(message)
        observation = self._observation(message.history)
        execution = wire.execution_from_message(message.execution) if message.HasField("execution") else self.execution
        request = Request(
            observation=observation,
            task=wire.task_from_message(message.task),
            seed=message.seed,
            num_samples=execution.num_samples,
            temperature=execution.temperature,
            execute=execution.execute,
            committed=_matrix(message),
            selection=execution.selection,
        )
        self.chunk, self.place, self.window = message.chunk, (message.episode, message.step), observation
        return request

    def _check_order(self, message: steering_pb2.InferRequest) -> None:
        if message.chunk <= self.chunk:
            raise SessionError(
                f"chunk {message.chunk} came after chunk {self.chunk} of session {self.id}: it is late, count upwards from 1"
            )
        place = (message.episode, message.step)
        if place < self.place:
            raise SessionError(
                f"episode {place[0]}, step {place[1]} came after episode {self.place[0]}, step {self.place[1]} "
                f"of session {self.id}: it is late, open a session to start again"
            )

    def _observation(self, history: steering_pb2.History) -> Observation:
        new = wire.tensors_from_map(history.frames)
        mask = wire.tensor_from_message(history.mask, "mask")
        if mask.dtype != np.bool_:
            raise SpecError(f"mask: got {mask.dtype}, expected bool, one flag per frame of history")
        arrays = self._joined(new, history.kept_frames, history.after_chunk) if history.kept_frames else new
        observation = Observation(arrays, mask, history.time_s)
        self.spec.validate(observation)
        return observation

    def _joined(self, new: dict[str, Array], kept: int, after_chunk: int) -> dict[str, Array]:
        if self.window is None or after_chunk != self.chunk or kept > len(self.window.mask):
            raise SessionError(
                f"session {self.id}: the request follows {kept} frames of chunk {after_chunk}, "
                f"but the last window is that of chunk {self.chunk}: send the whole window"
            )
        old = self.window.arrays
        unknown = sorted(set(new) - set(old))
        if unknown:
            raise SpecError(f"observations {unknown} have no kept frames to follow: send the whole window")
        for key, value in new.items():
            if value.ndim != old[key].ndim or value.shape[1:] != old[key].shape[1:] or value.dtype != old[key].dtype:
                raise SpecError(
                    f"{key}: got {value.dtype}{value.shape} after frames of {old[key].dtype}{old[key].shape}"
                )
        return {key: np.concatenate([old[key][-kept:], value]) for key, value in new.items()}


class Sessions:
    """All sessions of a server."""

    def __init__(
        self, idle_timeout_s: float = 600.0, limit: int = 256, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.idle_timeout_s = idle_timeout_s
        self._limit = limit
        self._clock = clock
        self._sessions: dict[str, Session] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, robot: str, execution: Execution, spec: ObservationSpec) -> Session:
        """A new session; raises `UnavailableError` when there are too many."""
        self._end_idle()
        if len(self._sessions) >= self._limit:
            raise UnavailableError(
                f"{self._limit} sessions are open, no more are taken: idle ones end after {self.idle_timeout_s:g} s"
            )
        session = Session(secrets.token_hex(8), robot, execution, spec, self._clock())
        self._sessions[session.id] = session
        return session

    def get(self, session_id: str) -> Session:
        """The session of that id, marked as used; raises `SessionError` when there is none."""
        self._end_idle()
        session = self._sessions.get(session_id)
        if session is None:
            raise SessionError(
                f"no session {session_id!r}: it ended after {self.idle_timeout_s:g} s without use, "
                "or the server restarted: open another"
            )
        session.last_used = self._clock()
        return session

    def active(self) -> int:
        """Sessions that asked within the last second."""
        now = self._clock()
        return sum(now - session.last_used < 1.0 for session in self._sessions.values())

    def _end_idle(self) -> None:
        oldest = self._clock() - self.idle_timeout_s
        for session_id in [s.id for s in self._sessions.values() if s.last_used < oldest]:
            del self._sessions[session_id]


def _matrix(message: steering_pb2.InferRequest) -> Array | None:
    committed = wire.optional_tensor(message, "committed")
    return None if committed is None else wire.floats(committed, "committed", 2)
