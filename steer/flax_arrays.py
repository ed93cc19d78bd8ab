"""Arrays as Flax and Orbax pack them into MessagePack: read without jax, without pickle, and without a type that data name.

A leaf is an extension of type 1 (an array) or 3 (a numpy scalar) whose payload is again MessagePack: `[shape, dtype name, raw
little-endian bytes]` in C order.
"""

from __future__ import annotations

import msgpack
import numpy as np

from steer.spec import Array

EXTENSIONS = (1, 3)
_DTYPES = ("float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint32", "uint8", "bool")


def unpack_array(code: int, payload: bytes) -> Array:
    """The array of an extension, for msgpack's `ext_hook`: a view of the payload. Raises `ValueError` for anything else."""
    if code not in EXTENSIONS:
        raise ValueError(f"extension type {code}, expected one of {EXTENSIONS}")
    shape, dtype, data = msgpack.unpackb(payload, max_bin_len=len(payload))
    # By this list, not by what numpy knows: that grows with the packages that are imported.
    if dtype not in _DTYPES:
        raise ValueError(f"array of {dtype!r}, expected one of {list(_DTYPES)}")
    return np.frombuffer(data, np.dtype(dtype).newbyteorder("<")).reshape(shape)
