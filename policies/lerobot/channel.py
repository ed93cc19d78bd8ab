"""The wire between Steer and a LeRobot worker: one JSON header and named tensors each way, over a pair of sockets.

Tensors are the messages of `proto/steer/v1`, written and read by `steer.wire`. The header is small and typed by its use
(`policies.lerobot.worker` lists the requests); nothing is pickled. The pair is private to the two processes: no port is opened,
and the end of either process is the end of the stream for the other, however it ended.

Why not the gRPC service of `steer.server`: that carries decisions of a session, not a policy's spec, contexts and batches.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from steer.errors import SpecError
from steer.spec import Array
from steer.v1 import tensor_pb2
from steer.wire import tensor_from_message, tensor_to_message

PROTOCOL = 1
"""Raised when requests or answers change; both sides compare it, as they may be installed apart."""


@dataclass(frozen=True)
class Parcel:
    """One message. Tensors that were received are read-only views."""

    header: Mapping[str, Any]
    tensors: Mapping[str, Array] = field(default_factory=dict)


def send(connection: Connection, parcel: Parcel) -> None:
    """Write a message; raises `OSError` when the other side is gone."""
    # Everything is encoded before the first byte leaves: a tensor that cannot be sent must not cut a message in two.
    parts = [tensor_to_message(value, name).SerializeToString() for name, value in parcel.tensors.items()]
    header = json.dumps({**parcel.header, "tensors": list(parcel.tensors)}).encode()
    for part in (header, *parts):
        connection.send_bytes(part)


def receive(connection: Connection) -> Parcel:
    """Read a message; raises `EOFError` or `OSError` when the other side is gone."""
    header = json.loads(connection.recv_bytes())
    if not isinstance(header, dict) or not isinstance(header.get("tensors"), list):
        raise SpecError(f"the message starts with {type(header).__name__}, expected a header that names its tensors")
    names = header.pop("tensors")
    tensors = {name: tensor_from_message(tensor_pb2.Tensor.FromString(connection.recv_bytes()), name) for name in names}
    return Parcel(header, tensors)
