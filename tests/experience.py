"""A store with episodes to send, and a server of `Experience` alone, for tests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from steer.data.episode import Episode
from steer.data.origin import SegmentId, store_identity
from steer.data.store import EpisodeStore
from steer.robot import RobotSpec
from steer.server.experience import ExperienceService
from steer.server.incoming import Incoming
from steer.server.metrics import Metrics
from steer.v1 import experience_pb2_grpc
from tests.fakes import ROBOT


def episode(value: float, length: int = 3, noise: int = 0) -> Episode:
    """One whose rewards are its value. noise: numbers per step that do not compress."""
    rng = np.random.default_rng(int(1000 * value))
    return Episode(
        observations={"state": np.full((length + 1, 3), value, np.float32)},
        actions=np.zeros((length, 3), np.float32),
        rewards=np.full(length, value, np.float32),
        terminated=False,
        truncated=True,
        steps={"noise": rng.normal(size=(length, noise))} if noise else {},
    )


def recorded(path: Path, values: list[float], robot: RobotSpec = ROBOT, **shape: int) -> EpisodeStore:
    """A store with one segment per value."""
    store = EpisodeStore.create(path, robot, exist_ok=True, skip_broken=True)
    with store.writer(1) as writer:
        for value in values:
            writer.add(episode(value, **shape))
    store.refresh()
    return store


def values(path: Path) -> list[float]:
    """Of all episodes in a store, read afresh and completely."""
    return [float(each.rewards[0]) for each in EpisodeStore.open(path).episodes()]


def segment_id(store: EpisodeStore, place: int = 0) -> SegmentId:
    return SegmentId(store_identity(store.path), store.segments[place].name)


@contextmanager
def experience_server(store: Path, address: str = "127.0.0.1:0", **limits: Any) -> Iterator[str]:
    """A server on a thread of this process; yields its address."""
    started: Future[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def main() -> None:
        # On this loop: calls that came meanwhile are answered before the store is let go of.
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        service = ExperienceService(Incoming(store, **limits), Metrics())
        experience_pb2_grpc.add_ExperienceServicer_to_server(service, server)
        port = server.add_insecure_port(address)
        await server.start()
        stop = asyncio.Event()
        started.set_result((f"127.0.0.1:{port}", asyncio.get_running_loop(), stop))
        await stop.wait()
        await server.stop(0)
        await service.close()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    at, loop, stop = started.result(60)
    try:
        yield at
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
