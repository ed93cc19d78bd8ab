"""openpi's wire: every captured message is read as described, and written again byte for byte.

NAME.bin is one message and NAME.json what it says; a NAME.json without one describes an error, which is a text.
PREFIX_client_to_server.bin and PREFIX_server_to_client.bin are the two directions of one connection, as raw TCP bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from steer.openpi import codec
from tests.golden.comparison import Comparison, equal

CLIENT, SERVER = "_client_to_server.bin", "_server_to_client.bin"
# A longer array is described by its digest alone.
_MOST_VALUES = 80


def compare(folder: Path) -> Iterator[Comparison]:
    """All messages and connections in `folder`."""
    described_files = sorted(folder.glob("*.json"))
    if not described_files:
        raise FileNotFoundError(f"{folder}: no NAME.json describes a message")
    for path in described_files:
        content = path.with_suffix(".bin")
        described = json.loads(path.read_text())
        yield from _message(content, described) if content.exists() else _error(path, described)
    for path in sorted(folder.glob("*.bin")):
        if path.name.endswith(CLIENT):
            yield from _connection(path, path.with_name(path.name.removesuffix(CLIENT) + SERVER))
        elif path.name.endswith(SERVER):
            if not path.with_name(path.name.removesuffix(SERVER) + CLIENT).exists():
                raise FileNotFoundError(f"{path}: the other direction of the connection is missing")
        elif not path.with_suffix(".json").exists():
            raise FileNotFoundError(f"{path}: no {path.stem}.json says what it holds")


def describe(value: Any) -> Any:
    """A decoded message in the form of the .json files."""
    match value:
        case np.ndarray():
            digest = hashlib.sha256(value.tobytes()).hexdigest()
            values = value.tolist() if value.size <= _MOST_VALUES else None
            shape = list(value.shape)
            return {
                "__kind__": "ndarray",
                "dtype": value.dtype.str,
                "shape": shape,
                "sha256_of_c_order_bytes": digest,
                "values": values,
            }
        case np.generic():
            return {"__kind__": "numpy scalar", "dtype": value.dtype.str, "value": value.item()}
        case bytes():
            return {"__kind__": "bytes", "hex": value.hex()}
        case dict():
            return {key: describe(part) for key, part in value.items()}
        case list():
            return [describe(part) for part in value]
    return value


def _message(path: Path, described: dict[str, Any]) -> Iterator[Comparison]:
    data = path.read_bytes()
    message = codec.unpack(data)
    yield equal(path.name, "size", len(data), described["bytes"])
    yield equal(path.name, "sha256", hashlib.sha256(data).hexdigest(), described["sha256"])
    yield equal(path.name, "decoded", _exact(describe(message)), _exact(described["decodes_to"]))
    yield equal(path.name, "encoded again", codec.pack(message), data)


def _error(path: Path, described: dict[str, Any]) -> Iterator[Comparison]:
    """The text is no message: it has to be told from one, and its last line is the cause."""
    text = described["text"]
    yield equal(path.name, "client's message", f"Error in inference server:\n{text}", described["client_message"])
    yield equal(path.name, "opcode", f"text ({int(Opcode.TEXT)})", described["websocket_opcode"])


def _connection(sent: Path, received: Path) -> Iterator[Comparison]:
    """Both directions through a websocket implementation: handshake, frames, and every message in them."""
    request, asked = _parsed(ServerProtocol(max_size=None), sent.read_bytes())
    if request is None:
        raise ValueError(f"{sent}: no HTTP request stands at its beginning")
    client = ClientProtocol(parse_uri("ws://127.0.0.1"), max_size=None)
    client.key = request.headers["Sec-WebSocket-Key"]
    response, answered = _parsed(client, received.read_bytes())
    yield equal(received.name, "upgraded", response and response.status_code, 101)
    yield equal(received.name, "the accept key fits", client.handshake_exc, None)
    yield equal(received.name, "one metadata, then one reply per request", len(answered), len(asked) + 1)
    for path, frames in ((sent, asked), (received, answered)):
        for i, frame in enumerate(frames):
            yield equal(path.name, f"message {i}", codec.pack(codec.unpack(bytes(frame.data))), bytes(frame.data))


def _parsed(side: ServerProtocol | ClientProtocol, data: bytes) -> tuple[Any, list[Frame]]:
    """The handshake of one direction, None where there is no valid one, and its messages."""
    head, separator, rest = data.partition(b"\r\n\r\n")
    side.receive_data(head + separator)
    events = side.events_received()
    if not events:
        return None, []
    # The reply of a server in a capture was sent by another one.
    side.state = OPEN
    side.receive_data(rest)
    frames = [event for event in side.events_received() if isinstance(event, Frame)]
    return events[0], [frame for frame in frames if frame.opcode is Opcode.BINARY]


def _exact(described: Any) -> str:
    """Equal as text: NaN equals itself, and 1 is not 1.0."""
    return json.dumps(described, sort_keys=False)
