"""msgpack with numpy arrays, byte for byte as `openpi-client` writes it. Data only: nothing that is read can run or be imported.

    array    {b"__ndarray__": True, b"data": C-order bytes, b"dtype": dtype.str, b"shape": [...]}
    scalar   {b"__npgeneric__": True, b"data": value, b"dtype": dtype.str}

Everything else is plain msgpack; tuples come back as lists. Arrays that were read are read-only views of the message.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from steer.errors import MissingExtraError, SpecError
from steer.spec import Array

try:
    import msgpack
except ImportError as error:
    raise MissingExtraError("msgpack", "openpi", "the openpi wire") from error

_ARRAY, _SCALAR = b"__ndarray__", b"__npgeneric__"
_DATA, _DTYPE, _SHAPE = b"data", b"dtype", b"shape"
_FORBIDDEN_KINDS = "VOc"
# What `numpy.dtype.str` says of the kinds that travel. Anything else is refused before numpy reads it.
_DTYPE_TEXT = re.compile(r"[<>|](?:[biuf]\d{1,2}|[US]\d{1,9}|[mM]8(?:\[\d{0,4}[a-zμ]{1,2}\])?)", re.IGNORECASE)


def pack(message: Any) -> bytes:
    """The bytes of a message; raises `SpecError` for what the wire cannot carry."""
    try:
        packed: bytes = msgpack.packb(message, default=_encode)
    except (TypeError, ValueError, OverflowError) as error:
        raise SpecError(f"cannot be sent as an openpi message: {error}") from error
    return packed


def unpack(data: bytes) -> Any:
    """The message in `data`; raises `SpecError` when it is not one, whole and alone."""
    try:
        return msgpack.unpackb(data, object_hook=_decode, ext_hook=_refuse_extension)
    except SpecError:
        raise
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        reason = str(error) or type(error).__name__
        raise SpecError(
            f"{len(data)} bytes that are no openpi message ({reason}): expected one msgpack value"
        ) from error


def unpack_map(data: bytes, what: str) -> dict[str, Any]:
    """The message in `data`, which has to be a map with text keys; `what` names it in the error."""
    try:
        message = unpack(data)
    except SpecError as error:
        raise SpecError(f"{what}: {error}") from error
    if not isinstance(message, dict) or not all(isinstance(key, str) for key in message):
        raise SpecError(f"{what}: got {_kind(message)}, expected a map with text keys")
    return message


def _encode(value: Any) -> Any:
    """What msgpack does not know itself: arrays and numpy's scalars."""
    if not isinstance(value, (np.ndarray, np.generic)):
        raise TypeError(f"{type(value).__name__} has no form there: send numpy arrays, numbers, texts, lists and maps")
    if value.dtype.kind in _FORBIDDEN_KINDS:
        raise ValueError(f"arrays of dtype {value.dtype} are not part of it: send numbers, truth values or texts")
    if isinstance(value, np.ndarray):
        return {_ARRAY: True, _DATA: value.tobytes(), _DTYPE: value.dtype.str, _SHAPE: value.shape}
    return {_SCALAR: True, _DATA: value.item(), _DTYPE: value.dtype.str}


def _decode(value: dict[Any, Any]) -> Any:
    """A map that stands for an array or a scalar, as that; any other as it is."""
    if _ARRAY in value:
        return _array(value)
    if _SCALAR in value:
        return _scalar(value)
    return value


def _array(value: Mapping[bytes, Any]) -> Array:
    dtype, data, shape = _dtype(value), value.get(_DATA), value.get(_SHAPE)
    if not isinstance(data, bytes) or not isinstance(shape, list) or not all(_is_length(n) for n in shape):
        raise SpecError(f"an array of {_kind(data)} and shape {shape!r}: expected bytes and a list of lengths")
    expected = math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise SpecError(f"an array of {len(data)} bytes for {dtype} of shape {shape}: expected {expected}")
    try:
        return np.ndarray(shape, dtype, buffer=data)
    except (ValueError, OverflowError) as error:
        raise SpecError(f"an array of {dtype} with shape {shape}: {error}") from error


def _scalar(value: Mapping[bytes, Any]) -> np.generic:
    dtype, data = _dtype(value), value.get(_DATA)
    if not isinstance(data, (bool, int, float, str, bytes)):
        raise SpecError(f"a numpy scalar of {_kind(data)}: expected a number, a truth value or a text")
    try:
        # A number too large for its dtype is an error, as it is for integers, and no infinity.
        with np.errstate(over="raise"):
            scalar: np.generic = dtype.type(data)
    except (TypeError, ValueError, OverflowError, FloatingPointError) as error:
        raise SpecError(f"a numpy scalar of {dtype} with value {data!r:.40}: {error}") from error
    return scalar


def _dtype(value: Mapping[bytes, Any]) -> np.dtype[Any]:
    text = value.get(_DTYPE)
    if not isinstance(text, str) or not _DTYPE_TEXT.fullmatch(text):
        raise SpecError(
            f"an array of dtype {text!r:.40}: expected numbers, truth values or texts, such as '<f4' or '|u1'"
        )
    try:
        return np.dtype(text)
    except TypeError as error:
        raise SpecError(f"an array of dtype {text!r}: {error}") from error


def _is_length(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number >= 0


def _refuse_extension(code: int, data: bytes) -> Any:
    raise SpecError(f"an extension type ({code}) in the message: it is not part of the openpi wire")


def _kind(value: Any) -> str:
    return type(value).__name__
