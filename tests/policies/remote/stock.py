"""A server that speaks openpi's protocol as the stock one does: no seed, errors as a traceback, unknown keys ignored.

It can also misbehave in every way a client must survive. Runs in a thread (`stock`) or as a process of its own
(`python -m tests.policies.remote.stock`), which prints its port and dies when it is asked to.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from websockets.sync.server import ServerConnection, serve

from steer.openpi import codec

H, A = 4, 3
TRACEBACK = (
    "Traceback (most recent call last):\n  File \"/srv/secret.py\", line 7, in infer\nKeyError: 'observation/state'\n"
)

Answer = Callable[[Mapping[str, Any]], Any]
"""From a request to the reply: a map, a text, bytes as they are, or None for silence."""


def chunk(message: Mapping[str, Any]) -> dict[str, Any]:
    """Small noise around the observation, other each time."""
    brightness = sum(float(value.mean()) for value in message.values() if isinstance(value, np.ndarray))
    actions = 0.05 * np.tanh(brightness / 100) + np.random.default_rng().uniform(-0.04, 0.04, (H, A))
    # With a state, which some stock transforms leave in.
    return {"actions": actions, "state": np.zeros(8), "server_timing": {"infer_ms": 1.0}}


def _session(connection: ServerConnection, metadata: Mapping[str, Any], answer: Answer) -> None:
    connection.send(codec.pack(metadata))
    for data in connection:
        reply = answer(codec.unpack(data.encode() if isinstance(data, str) else data))
        if isinstance(reply, str):
            connection.send(reply)
            connection.close(1011, "Internal server error. Traceback included in previous frame.")
            return
        if reply is not None:
            connection.send(reply if isinstance(reply, bytes) else codec.pack(reply))


@contextmanager
def stock(
    answer: Answer = chunk, metadata: Mapping[str, Any] | None = None, port: int = 0, **options: Any
) -> Iterator[int]:
    """The server in a thread; yields its port."""

    def handle(connection: ServerConnection) -> None:
        _session(connection, metadata or {}, answer)

    with serve(handle, "127.0.0.1", port, compression=None, max_size=None, **options) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.socket.getsockname()[1]
        finally:
            server.shutdown()
            thread.join()


def _as_told(message: Mapping[str, Any]) -> Any:
    """`prompt` says what to do: "die" in the middle of a call, "hang", or answer."""
    match message.get("prompt"):
        case "die":
            os._exit(1)
        case "hang":
            print("hanging", flush=True)
            time.sleep(600)
    return chunk(message)


if __name__ == "__main__":
    with stock(_as_told, port=int(sys.argv[1]) if len(sys.argv) > 1 else 0) as bound:
        print(bound, flush=True)
        sys.stdin.read()
        os._exit(0)
