"""`serve`: an engine behind gRPC until a signal; `running`: the same in a thread, for programs that bring their own server.

Order of a start: take the port (an error here costs no time), warm the models, accept calls, announce SERVING. Order of an
end: announce NOT_SERVING, take no more requests, answer those in the queue, close. A second signal ends the process at once.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from steer.engine import Engine
from steer.errors import ConfigError, UnavailableError
from steer.server.batcher import Batcher
from steer.server.experience import ExperienceService
from steer.server.follow import Follower, Following
from steer.server.incoming import MAX_SEGMENT_BYTES, Incoming
from steer.server.metrics import Metrics
from steer.server.residents import Residents
from steer.server.service import SteeringService
from steer.server.sessions import Sessions
from steer.server.warm import warm
from steer.v1 import experience_pb2_grpc, steering_pb2_grpc
from steer.wire import MAX_MESSAGE_BYTES

if TYPE_CHECKING:
    from steer.server.openpi import OpenpiConfig, OpenpiEndpoint

SERVICE = "steer.v1.Steering"
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class ServerConfig:
    """How to serve."""

    address: str = "127.0.0.1:50051"
    """host:port to listen on; port 0 takes a free one. Loopback unless told otherwise: there is no authentication."""
    deterministic: bool = False
    """One request per batch, candidates never cut: an answer depends on nothing but its request."""
    max_batch: int = 16
    """Most requests decided together."""
    max_wait_s: float = 0.002
    """Longest wait of a request for others to be decided with."""
    max_message_bytes: int = MAX_MESSAGE_BYTES
    """Largest request."""
    idle_timeout_s: float = 600.0
    """A session ends when it was not used for so long."""
    drain_s: float = 10.0
    """Time for requests in progress when the server ends."""
    metrics_port: int = 0
    """Prometheus metrics on this port of the same host; 0: none."""
    warm_samples: int = 8
    """Candidates of the requests that warm the models, and the first measured cost."""
    poll_s: float = 1.0
    """Time between two looks at a run that is followed."""
    experience: Path | None = None
    """Take the episodes that robots record (`steer run --upload`) into this store; it is made if it is not there."""
    max_segment_bytes: int = MAX_SEGMENT_BYTES
    """Largest segment of episodes that is taken."""

    @property
    def host(self) -> str:
        host, separator, port = self.address.rpartition(":")
        if not separator or not host or not port.isdecimal():
            raise ConfigError(f"address {self.address!r}: expected host:port, such as 127.0.0.1:50051")
        return host


_DEFAULTS = ServerConfig()
_ANY_PORT = ServerConfig(address="127.0.0.1:0")


class SteeringServer:
    """One engine, or the versions of a run, behind one port. Make, start and stop it on one event loop."""

    def __init__(
        self,
        models: Engine | Residents,
        config: ServerConfig = _DEFAULTS,
        may_steer: bool | None = None,
        openpi: OpenpiConfig | None = None,
        following: Following | None = None,
    ) -> None:
        """openpi: answer openpi's clients as well. following: change the residents as the run goes on."""
        self._residents = models if isinstance(models, Residents) else Residents(models)
        self._config = config
        self.metrics = Metrics()
        self._sessions = sessions = Sessions(config.idle_timeout_s)
        self._batcher = Batcher(
            self.metrics,
            active=self._active,
            max_batch=config.max_batch,
            max_wait_s=config.max_wait_s,
            deterministic=config.deterministic,
        )
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(options=_options(config))
        service = SteeringService(
            self._residents,
            self._batcher,
            sessions,
            self.metrics,
            max_message_bytes=config.max_message_bytes,
            may_steer=may_steer,
        )
        steering_pb2_grpc.add_SteeringServicer_to_server(service, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._experience = None if config.experience is None else self._take_experience(config.experience)
        self._openpi = None if openpi is None else self._endpoint(openpi)
        self.openpi_address = ""
        self._following = following
        self._serving: asyncio.Task[None] | None = None
        self._follower: asyncio.Task[None] | None = None

    async def start(self) -> str:
        """Take the port, warm the models, accept calls; returns the address. Raises `UnavailableError` when a port is taken."""
        address = self._bind()
        if self._openpi is not None:
            self.openpi_address = await self._openpi.bind()
        if self._config.metrics_port:
            self.metrics.serve(self._config.host, self._config.metrics_port)
        self._serving = asyncio.create_task(self._batcher.run())
        await warm(self._batcher, self._residents.engine, self._config.warm_samples)
        await self._server.start()
        if self._openpi is not None:
            await self._openpi.start()
        for name in ("", SERVICE):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        if self._following is not None:
            self._follower = asyncio.create_task(self._follow(self._following))
        return address

    async def stop(self) -> None:
        """Finish what was asked, within `drain_s`, and close."""
        await self._health.enter_graceful_shutdown()
        if self._follower is not None:
            self._follower.cancel()
        self._batcher.close()
        openpi = () if self._openpi is None else (self._openpi.stop(self._config.drain_s),)
        await asyncio.gather(self._server.stop(self._config.drain_s), *openpi)
        if self._experience is not None:
            await self._experience.close()
        if self._serving is not None:
            await self._serving

    def _take_experience(self, store: Path) -> ExperienceService:
        incoming = Incoming(store, self._config.max_segment_bytes)
        service = ExperienceService(incoming, self.metrics, self._config.max_message_bytes)
        experience_pb2_grpc.add_ExperienceServicer_to_server(service, self._server)
        return service

    async def _follow(self, following: Following) -> None:
        samples = self._config.warm_samples
        follower = Follower(following, self._residents, self._batcher, self.metrics, samples=samples)
        await follower.run(self._config.poll_s)

    def _endpoint(self, config: OpenpiConfig) -> OpenpiEndpoint:
        # Only here, because not everybody has a websocket library.
        from steer.server.openpi import OpenpiEndpoint

        return OpenpiEndpoint(
            self._residents,
            self._batcher,
            self.metrics,
            config,
            host=self._config.host,
            max_message_bytes=self._config.max_message_bytes,
        )

    def _active(self) -> int:
        """Clients that may be asking right now."""
        return self._sessions.active() + (0 if self._openpi is None else self._openpi.active())

    def _bind(self) -> str:
        host = self._config.host
        try:
            port = self._server.add_insecure_port(self._config.address)
        except RuntimeError:
            port = 0
        if port == 0:
            raise UnavailableError(
                f"cannot listen on {self._config.address}: another program has the port, or the address is not this machine's: "
                "stop it, or give another --address"
            )
        return f"{host}:{port}"


def serve(
    models: Engine | Residents,
    config: ServerConfig = _DEFAULTS,
    may_steer: bool | None = None,
    announce: Callable[[str], None] = lambda address: None,
    openpi: OpenpiConfig | None = None,
    following: Following | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM, then drain. `announce` is called with each address once calls are taken there."""
    asyncio.run(_serve(lambda: SteeringServer(models, config, may_steer, openpi, following), announce))


async def _serve(make: Callable[[], SteeringServer], announce: Callable[[str], None]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _on_signal, number, stop)
    server = make()
    announce(await server.start())
    if server.openpi_address:
        announce(server.openpi_address)
    await stop.wait()
    await server.stop()


def _on_signal(number: signal.Signals, stop: asyncio.Event) -> None:
    if stop.is_set():
        # The worker thread cannot be interrupted in the middle of an inference, so a plain exit would wait for it.
        os._exit(128 + number)
    _log.info("stopping: finishing what was asked; again to stop at once", signal=number.name)
    stop.set()


@contextmanager
def running(
    models: Engine | Residents,
    config: ServerConfig = _ANY_PORT,
    may_steer: bool | None = None,
    openpi: OpenpiConfig | None = None,
    following: Following | None = None,
) -> Iterator[str]:
    """A server on a thread of this process; yields its address, of the openpi endpoint where there is one."""
    address: Future[str] = Future()
    stop: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def main() -> None:
        event = asyncio.Event()
        stop.set_result((asyncio.get_running_loop(), event))
        try:
            server = SteeringServer(models, config, may_steer, openpi, following)
            started = await server.start()
            address.set_result(server.openpi_address or started)
        except BaseException as error:  # noqa: BLE001 - raised again on the caller's thread
            address.set_exception(error)
            return
        await event.wait()
        await server.stop()

    thread = threading.Thread(target=asyncio.run, args=(main(),), name="steering-server")
    thread.start()
    try:
        yield address.result()
    finally:
        loop, event = stop.result()
        if not address.exception():
            loop.call_soon_threadsafe(event.set)
        thread.join()


def _options(config: ServerConfig) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", config.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        # Otherwise a second server would take the same port without an error, and share its calls.
        ("grpc.so_reuseport", 0),
    ]
