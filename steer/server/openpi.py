"""`OpenpiEndpoint`: steered chunks for robots that speak openpi's websocket protocol, through the same batcher as gRPC requests.

On a connection: our metadata, then strictly one observation and one answer after the other. Such a client sends one frame
per chunk, so the window of history is kept here; one connection is one session, and `reset` begins another. An error is told
as a TEXT message and ends the connection with code 1011, as the stock server does; its text says what to do and holds
nothing of the server's inside. Inference never runs on the event loop, so pings are answered meanwhile.
"""

from __future__ import annotations

import asyncio
import operator
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any

import numpy as np
import structlog

from steer.decision import Decision, Request
from steer.errors import ConfigError, MissingExtraError, SpecError, SteerError, UnavailableError, UnsupportedError
from steer.history import History
from steer.observation import Observation, ObservationSpec, Task
from steer.openpi import codec, protocol
from steer.openpi.keys import STEP, KeyMap, pick
from steer.robot import Frame
from steer.selection import Selection
from steer.server.batcher import Batcher
from steer.server.metrics import Metrics
from steer.server.residents import Pin, Residents
from steer.spec import Array

try:
    from websockets.asyncio.server import Server, ServerConnection
    from websockets.asyncio.server import serve as listen
    from websockets.exceptions import ConnectionClosed
    from websockets.frames import CloseCode
    from websockets.http11 import Request as HttpRequest
    from websockets.http11 import Response as HttpResponse
except ImportError as error:
    raise MissingExtraError("websockets", "openpi", "the openpi endpoint") from error

_FIRST = Selection(choose="first")
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class OpenpiConfig:
    """How openpi's clients are answered. They say nothing about their robot, so this does.

    port: 0 takes a free one. execute: how many steps of each chunk the client runs, the prefix that a critic scores; 0: all.
    num_samples: candidates per chunk where there is a critic to choose. keys: names of the observations on this wire.
    """

    port: int = 8000
    execute: int = 0
    num_samples: int = 8
    keys: KeyMap = field(default_factory=KeyMap)
    max_connections: int = 64


class _Session:
    """One connection: its frames so far, its episode, the seed of its next request, how long the last answer took."""

    def __init__(self, spec: ObservationSpec) -> None:
        self.history = History(spec)
        self.pin = Pin()
        self.episode = 0
        self.seed = 0
        self.busy = False
        self.last_used = time.monotonic()
        self.last_total_ms: float | None = None

    def reset(self) -> None:
        self.history.reset()
        self.episode += 1
        self.seed = 0


class OpenpiEndpoint:
    """See the module. Make, start and stop it on one event loop."""

    def __init__(
        self,
        residents: Residents,
        batcher: Batcher,
        metrics: Metrics,
        config: OpenpiConfig,
        *,
        host: str,
        max_message_bytes: int,
    ) -> None:
        self._residents = residents
        self._batcher = batcher
        self._metrics = metrics
        self._config = config
        self._host = host.removeprefix("[").removesuffix("]")
        self._max_message_bytes = max_message_bytes
        engine = residents.engine
        self._spec = config.keys.renamed(engine.observation)
        self._check()
        self._num_samples = self._useful_samples()
        if engine.observation.window > 1:
            _log.warning(
                "openpi's clients send one frame per chunk: the history holds frames that are as far apart",
                window=engine.observation.window,
                steps_apart=config.execute or engine.horizon,
            )
        self._server: Server | None = None
        self._sessions: dict[ServerConnection, _Session] = {}
        self._stopping = False

    async def bind(self) -> str:
        """Take the port; returns the address. Raises `UnavailableError` when it is taken."""
        try:
            self._server = await listen(
                self._serve,
                self._host,
                self._config.port,
                compression=None,
                max_size=self._max_message_bytes,
                process_request=_health,
                # A web page that a person at the robot's machine opens must not be able to connect.
                origins=[None],
                start_serving=False,
            )
        except OSError as error:
            raise UnavailableError(
                f"cannot listen on {self._host}:{self._config.port} for openpi ({error.strerror}): give another --openpi-port"
            ) from error
        port = self._server.sockets[0].getsockname()[1]
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"ws://{host}:{port}"

    async def start(self) -> None:
        """Answer connections."""
        assert self._server is not None
        await self._server.start_serving()

    async def stop(self, grace_s: float) -> None:
        """Take no more connections, finish the answers in progress, and close."""
        if self._server is None:
            return
        self._stopping = True
        self._server.close(close_connections=False)
        for connection, session in list(self._sessions.items()):
            if not session.busy:
                await connection.close(CloseCode.GOING_AWAY, "the server is shutting down")
        with suppress(TimeoutError):
            await asyncio.wait_for(self._server.wait_closed(), grace_s)
        for connection in list(self._sessions):
            await connection.close(CloseCode.GOING_AWAY, "the server is shutting down")

    def active(self) -> int:
        """Connections that asked within the last second."""
        now = time.monotonic()
        return sum(now - session.last_used < 1.0 for session in self._sessions.values())

    def _metadata(self) -> bytes:
        """What a connection is told first, of the version that is served now."""
        engine = self._residents.engine
        return codec.pack(protocol.announce(engine, self._config.keys, self._config.execute or engine.horizon))

    # -- one connection

    async def _serve(self, connection: ServerConnection) -> None:
        if len(self._sessions) >= self._config.max_connections:
            await connection.close(CloseCode.TRY_AGAIN_LATER, "too many connections")
            return
        session = self._sessions[connection] = _Session(self._spec)
        _log.info("openpi connection opened", peer=connection.remote_address)
        try:
            await connection.send(self._metadata())
            async for message in connection:
                if not await self._exchange(connection, session, message):
                    return
        except ConnectionClosed as error:
            _log.info("openpi connection lost", peer=connection.remote_address, reason=str(error))
        finally:
            del self._sessions[connection]

    async def _exchange(self, connection: ServerConnection, session: _Session, message: str | bytes) -> bool:
        """Answer one message; False when the connection ends with it."""
        start = time.perf_counter()
        session.busy, session.last_used = True, time.monotonic()
        text, status = "", "OK"
        try:
            await connection.send(await self._reply(session, message))
        except SteerError as error:
            text, status = f"{type(error).__name__}: {error}", error.status
        except ConnectionClosed:
            raise
        except Exception:  # noqa: BLE001 - logged; the client gets a number and no internals
            incident = uuid.uuid4().hex[:8]
            _log.exception("internal error", call="openpi", incident=incident)
            text, status = f"SteerError: internal error {incident} in the server: its log says more", "INTERNAL"
        finally:
            session.busy = False
            total_s = time.perf_counter() - start
            session.last_total_ms = 1e3 * total_s
            self._metrics.requests.labels("openpi", status).inc()
            self._metrics.request_s.labels("openpi").observe(total_s)
        if text:
            await connection.send(text)
            await connection.close(CloseCode.INTERNAL_ERROR, "the previous message says what is wrong")
        elif self._stopping:
            await connection.close(CloseCode.GOING_AWAY, "the server is shutting down")
        return not text and not self._stopping

    async def _reply(self, session: _Session, data: str | bytes) -> bytes:
        if isinstance(data, str):
            raise SpecError("got a text message, expected a binary one: a msgpack map with the observation")
        message = codec.unpack_map(data, "observation")
        request = self._request(session, message)
        start = time.perf_counter()
        with self._residents.deciding(session.pin, session.episode) as engine:
            decision = await self._batcher.submit(engine, request)
        timing = {"infer_ms": 1e3 * (time.perf_counter() - start)}
        if session.last_total_ms is not None:
            timing["prev_total_ms"] = session.last_total_ms
        # A stock client slices every array of a reply along the steps: nothing else may be one, unless it was asked for.
        reply: dict[str, Any] = {
            "actions": decision.chunk,
            "server_timing": timing,
            "policy_version": decision.policy_version,
            "critic_version": decision.critic_version,
        }
        if "num_samples" in message:
            reply["candidates"] = _candidates(decision, request.num_samples)
        return codec.pack(reply)

    def _request(self, session: _Session, message: Mapping[str, Any]) -> Request:
        if message.get("reset"):
            session.reset()
        seed = _integer(message, "seed", session.seed)
        session.seed += 1
        observation = self._observation(session, message)
        arrays = {
            name: observation.arrays[self._config.keys.their(name)] for name in self._residents.engine.observation.keys
        }
        request = Request(
            observation=replace(observation, arrays=arrays),
            task=Task(_text(message, "prompt")),
            seed=seed,
            num_samples=self._num_samples,
            temperature=_number(message, "temperature", 1.0),
            execute=self._config.execute,
        )
        if "num_samples" not in message:
            return request
        return replace(request, num_samples=_integer(message, "num_samples", 1), execute=0, selection=_FIRST)

    def _observation(self, session: _Session, message: Mapping[str, Any]) -> Observation:
        """The window, from this frame and those before, or as the client sent it."""
        given = pick(message, self._spec.keys)
        arrays = {name: _as_stated(value, self._spec[name].dtype) for name, value in given.items()}
        now = time.monotonic()
        if "mask" not in message:
            session.history.push(Frame(arrays, now))
            return session.history.observation()
        mask = message["mask"]
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            raise SpecError(f"mask: got {type(mask).__name__}, expected an array of bool, one per frame of history")
        observation = Observation(arrays, mask, now)
        self._spec.validate(observation)
        return observation

    # -- at the start

    def _check(self) -> None:
        """Refuse at the start what every request would be refused for."""
        engine, execute = self._residents.engine, self._config.execute
        if engine.policy is None:
            raise UnsupportedError("openpi's clients bring no candidates: serve a policy, or leave out --openpi-port")
        self._config.keys.check(engine.observation)
        taken = [name for name in self._spec.keys if name.split(STEP)[0] in protocol.RESERVED]
        if taken:
            raise ConfigError(f"{taken} mean something else on the openpi wire: give other names with --openpi-map")
        if not 0 <= execute <= engine.horizon:
            raise ConfigError(
                f"--openpi-execute {execute}: a chunk has {engine.horizon} steps, give 1 to {engine.horizon}"
            )
        if engine.critic is not None:
            try:
                engine.critic.spec.scored_steps(execute or engine.horizon)
            except UnsupportedError as error:
                raise ConfigError(f"--openpi-execute {execute or engine.horizon}: {error}") from error

    def _useful_samples(self) -> int:
        """Candidates to propose: more than one only where something can choose among them."""
        engine = self._residents.engine
        assert engine.policy is not None
        chooses = engine.critic is not None and engine.policy.spec.stochastic
        return self._config.num_samples if chooses else 1


def _health(connection: ServerConnection, request: HttpRequest) -> HttpResponse | None:
    return connection.respond(HTTPStatus.OK, "OK\n") if request.path == "/healthz" else None


def _candidates(decision: Decision, num_samples: int) -> Array:
    if len(decision.candidates) != num_samples:
        raise SpecError(
            f"{decision.dropped} of {num_samples} candidates were not finite: the policy or its input is broken"
        )
    return decision.candidates


def _as_stated(value: Any, dtype: str) -> Any:
    """Floats of any width as those of the spec; nothing else is converted, an image in 0..1 least of all."""
    wanted = np.dtype(dtype)
    if isinstance(value, np.ndarray) and value.dtype.kind == wanted.kind == "f":
        return value.astype(wanted, copy=False)
    return value


def _integer(message: Mapping[str, Any], key: str, default: int) -> int:
    try:
        return operator.index(message.get(key, default))
    except TypeError as error:
        raise SpecError(f"{key}: got {message[key]!r:.40}, expected a whole number") from error


def _number(message: Mapping[str, Any], key: str, default: float) -> float:
    value = message.get(key, default)
    if not isinstance(value, (int, float, np.number)):
        raise SpecError(f"{key}: got {value!r:.40}, expected a number")
    return float(value)


def _text(message: Mapping[str, Any], key: str) -> str:
    value = message.get(key, "")
    if not isinstance(value, str):
        raise SpecError(f"{key}: got {type(value).__name__}, expected text")
    return value
