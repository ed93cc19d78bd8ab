"""Frames into the bytes of a request with one copy.

A protobuf object would copy every image two or three times. But messages of one type merge when their bytes stand one after
the other (protobuf encoding, "last one wins", and maps unite), so the small fields are serialised as usual and the frames are
appended as bytes of the same message: to the server, and to generated code in any language, it is one ordinary request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np

from steer import wire
from steer.spec import Array
from steer.v1 import steering_pb2, tensor_pb2

_Part: TypeAlias = bytes | memoryview

# Of the entries of every map field.
_KEY, _VALUE = 1, 2

INFER = (steering_pb2.InferRequest.HISTORY_FIELD_NUMBER,)
"""Where the history stands in an InferRequest."""
RERANK = (steering_pb2.RerankRequest.INFER_FIELD_NUMBER, *INFER)
"""Where it stands in a RerankRequest."""


def with_frames(request: bytes, frames: Mapping[str, Array], path: tuple[int, ...]) -> bytes:
    """The serialised `request` with `frames` in the history at `path`."""
    parts: list[_Part] = []
    for key, value in frames.items():
        entry = _delimited(_KEY, [key.encode()]) + _delimited(_VALUE, _tensor(value, key))
        parts += _delimited(steering_pb2.History.FRAMES_FIELD_NUMBER, entry)
    for number in reversed(path):
        parts = _delimited(number, parts)
    return b"".join([request, *parts])


def _tensor(value: Array, field: str) -> list[_Part]:
    header = wire.tensor_header(value, field).SerializeToString()
    raw = wire.little_endian(value).reshape(-1).view(np.uint8).data
    return [header, *_delimited(tensor_pb2.Tensor.DATA_FIELD_NUMBER, [raw])]


def _delimited(number: int, parts: list[_Part]) -> list[_Part]:
    """A field of wire type 2: tag, length, content."""
    return [_varint(number << 3 | 2) + _varint(sum(len(part) for part in parts)), *parts]


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
