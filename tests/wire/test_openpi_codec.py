"""The openpi codec: what goes through it comes back, and what must not be read is refused."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from steer.errors import ConfigError, SpecError
from steer.openpi import codec
from steer.openpi.keys import KeyMap, nested, pair, pick
from steer.openpi.protocol import cause

DTYPES = st.one_of(
    hnp.integer_dtypes(),
    hnp.unsigned_integer_dtypes(),
    hnp.floating_dtypes(),
    hnp.boolean_dtypes(),
    hnp.unicode_string_dtypes(),
)
DAMAGED = codec.pack({"a": np.ones((2, 3), np.float32), "b": np.float16(2), "c": [np.array(["xy"]), None, b"1"]})
ARRAYS = DTYPES.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0, max_dims=4)))


@given(ARRAYS)
def test_an_array_comes_back_as_it_was(array: np.ndarray) -> None:
    back = codec.unpack(codec.pack({"a": array}))["a"]
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert back.tobytes() == array.tobytes()
    assert codec.pack({"a": back}) == codec.pack({"a": array})
    assert not back.flags.writeable


@given(st.binary(max_size=64))
def test_any_bytes_are_a_message_or_a_spec_error(data: bytes) -> None:
    with suppress(SpecError):
        codec.unpack(data)


@given(st.integers(0, len(DAMAGED) - 1), st.integers(0, 255))
def test_a_damaged_byte_makes_another_message_or_a_spec_error(position: int, byte: int) -> None:
    with suppress(SpecError):
        codec.unpack(DAMAGED[:position] + bytes([byte]) + DAMAGED[position + 1 :])


def test_the_bytes_are_those_of_the_wire() -> None:
    packed = codec.pack({"x": np.array([1.0], "<f4"), "s": np.float32(2.0), "t": (1, "a")})
    assert packed == msgpack.packb(
        {
            "x": {b"__ndarray__": True, b"data": b"\x00\x00\x80?", b"dtype": "<f4", b"shape": [1]},
            "s": {b"__npgeneric__": True, b"data": 2.0, b"dtype": "<f4"},
            "t": [1, "a"],
        }
    )


@pytest.mark.parametrize(
    "value",
    [
        np.array([object()]),
        np.zeros(2, np.complex64),
        np.zeros(1, [("a", "i4")]),
        np.complex128(1j),
        object(),
        {1, 2},
        2**64,
    ],
    ids=lambda value: type(value).__name__ + str(getattr(value, "dtype", "")),
)
def test_what_the_wire_cannot_carry_is_refused(value: Any) -> None:
    with pytest.raises(SpecError, match="cannot be sent"):
        codec.pack({"a": value})


def array(data: Any = b"\x00" * 4, dtype: Any = "<f4", shape: Any = (1,)) -> bytes:
    packed: bytes = msgpack.packb({b"__ndarray__": True, b"data": data, b"dtype": dtype, b"shape": shape})
    return packed


@pytest.mark.parametrize(
    "data",
    [
        array(dtype="|O"),
        array(dtype="<c8"),
        array(dtype="|V4"),
        array(dtype="i4,i4"),
        array(dtype="<f3"),
        array(dtype=b"<f4"),
        array(dtype=None),
        array(data=b"\x00" * 5),
        array(data=[0, 0, 0, 0]),
        array(shape=[2]),
        array(shape=[-1]),
        array(shape=[True]),
        array(shape=4),
        array(data=b"", shape=[0, 2**62, 2**62]),
        msgpack.packb({b"__npgeneric__": True, b"data": [1], b"dtype": "<f4"}),
        msgpack.packb({b"__npgeneric__": True, b"data": "x", b"dtype": "<f4"}),
        msgpack.packb(msgpack.ExtType(7, b"x")),
        msgpack.packb({"a": 1}) + b"\x00",
        msgpack.packb({"a": 1})[:-1],
        msgpack.packb({3: 1}),
        b"\xdd\xff\xff\xff\xff",
        b"\x91" * 5000,
        b"\xa1\xff",
        b"",
    ],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(SpecError):
        codec.unpack(data)


def test_a_message_that_has_to_be_a_map_is_one() -> None:
    with pytest.raises(SpecError, match="reply: got list, expected a map"):
        codec.unpack_map(codec.pack([1]), "reply")
    with pytest.raises(SpecError, match="text keys"):
        codec.unpack_map(codec.pack({b"a": 1}), "reply")


def test_names_step_into_maps() -> None:
    message = nested({"state": 1, "images:cam_high": 2, "images:cam_low": 3})
    assert message == {"state": 1, "images": {"cam_high": 2, "cam_low": 3}}
    assert pick(message, ["images:cam_low", "state"]) == {"images:cam_low": 3, "state": 1}


def test_every_missing_observation_is_named() -> None:
    with pytest.raises(SpecError, match=r"lacks \['images:cam_high', 'b'\]; it has \['images', 'state'\]"):
        pick({"state": 1, "images": 5}, ["state", "images:cam_high", "b"])


def test_a_map_names_each_key_once() -> None:
    with pytest.raises(ConfigError, match=r"\['x'\] of theirs"):
        KeyMap.of_pairs([("a", "x"), ("b", "x")])
    with pytest.raises(ConfigError, match="expected NAME=NAME"):
        pair("state")


def test_the_cause_is_the_last_line_of_a_traceback() -> None:
    assert cause("Traceback (most recent call last):\n  (stack lines)\nValueError: boom\n") == "ValueError: boom"
    assert cause("\n \n") == "no reason was given"
