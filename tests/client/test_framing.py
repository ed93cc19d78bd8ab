"""Frames that are appended as bytes are, to generated code, an ordinary request."""

from __future__ import annotations

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steer import wire
from steer.client.framing import INFER, RERANK, with_frames
from steer.errors import SpecError
from steer.v1 import steering_pb2

FRAMES = st.dictionaries(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=5),
    st.sampled_from(["bool", "uint8", "float32", "int64"]).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=12))
    ),
    max_size=3,
)


def request() -> steering_pb2.InferRequest:
    made = steering_pb2.InferRequest(session="s", episode=3, step=70, chunk=300, seed=-1)
    made.history.kept_frames = 1
    made.history.mask.CopyFrom(wire.tensor_to_message(np.ones(2, np.bool_), "mask"))
    return made


@given(FRAMES)
def test_a_request_reads_as_if_protobuf_had_written_it(frames: dict[str, np.ndarray]) -> None:
    expected = request()
    for key, value in frames.items():
        expected.history.frames[key].CopyFrom(wire.tensor_to_message(value, key))
    appended = with_frames(request().SerializeToString(), frames, INFER)
    assert steering_pb2.InferRequest.FromString(appended) == expected
    whole = steering_pb2.RerankRequest(infer=expected, candidates=wire.tensor_to_message(np.zeros(2), "x"))
    small = steering_pb2.RerankRequest(infer=request(), candidates=whole.candidates)
    assert steering_pb2.RerankRequest.FromString(with_frames(small.SerializeToString(), frames, RERANK)) == whole


@pytest.mark.parametrize("array", [np.zeros((3, 4, 2), np.uint8)[:, ::2], np.arange(3, dtype=">f4")])
def test_any_layout_is_sent_in_c_order_and_little_endian(array: np.ndarray) -> None:
    back = steering_pb2.InferRequest.FromString(with_frames(b"", {"x": array}, INFER))
    np.testing.assert_array_equal(wire.tensor_from_message(back.history.frames["x"], "x"), array)


def test_a_dtype_that_cannot_be_sent_names_its_key() -> None:
    with pytest.raises(SpecError, match="camera: dtype complex64 cannot be sent"):
        with_frames(b"", {"camera": np.zeros(2, np.complex64)}, INFER)
