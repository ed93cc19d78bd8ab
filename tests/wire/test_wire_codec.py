"""The codec: what goes in comes out, and what is malformed is refused by the name of its field."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steer import errors, wire
from steer.action import ActionAxis, ActionSpec
from steer.decision import Decision
from steer.errors import SpecError, SteerError
from steer.observation import ObservationSpec, Task
from steer.robot import RobotSpec
from steer.selection import Selection
from steer.spec import ArraySpec
from steer.v1 import steering_pb2, tensor_pb2
from steer.wire import Execution

DTYPES = ("bool", "uint8", "int32", "int64", "float16", "float32", "float64")
ARRAYS = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
)
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=8)


def over_the_wire(message: tensor_pb2.Tensor) -> tensor_pb2.Tensor:
    return tensor_pb2.Tensor.FromString(message.SerializeToString())


@given(ARRAYS)
def test_a_tensor_survives_bit_for_bit(array: np.ndarray) -> None:
    back = wire.tensor_from_message(over_the_wire(wire.tensor_to_message(array, "x")), "x")
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.float32).reshape(3, 4).T,  # not in C order
        np.arange(12, dtype=np.float32)[::-2],  # negative stride
        np.arange(3, dtype=">f4"),  # big-endian
        np.float32(3.0).reshape(()),  # a scalar
    ],
)
def test_any_layout_is_sent_in_c_order_and_little_endian(array: np.ndarray) -> None:
    message = wire.tensor_to_message(array, "x")
    assert message.data == np.ascontiguousarray(array, "<f4").tobytes()
    np.testing.assert_array_equal(wire.tensor_from_message(message, "x"), array)


def test_reading_is_a_view_that_nobody_can_write_to() -> None:
    back = wire.tensor_from_message(wire.tensor_to_message(np.zeros(3, np.float32), "x"), "x")
    assert not back.flags.owndata
    assert not back.flags.writeable


@pytest.mark.parametrize("array", [np.array(["a"]), np.zeros(2, np.complex64), np.array([object()])])
def test_other_dtypes_are_refused(array: np.ndarray) -> None:
    with pytest.raises(SpecError, match=r"^camera: dtype .* cannot be sent"):
        wire.tensor_to_message(array, "camera")


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (tensor_pb2.Tensor(dtype=tensor_pb2.DTYPE_FLOAT32, shape=[2], data=b"\0" * 7), "7 bytes came for shape .2,."),
        (tensor_pb2.Tensor(dtype=tensor_pb2.DTYPE_FLOAT32, shape=[2**40, 2**40], data=b"\0"), "1 bytes came"),
        (tensor_pb2.Tensor(shape=[1], data=b"\0"), "element type 0 is unknown"),
        (tensor_pb2.Tensor(dtype=99, shape=[1], data=b"\0"), "element type 99 is unknown"),  # type: ignore[arg-type]
        (tensor_pb2.Tensor(dtype=tensor_pb2.DTYPE_BOOL, shape=[1], data=b"\2"), "bytes other than 0 and 1"),
    ],
)
def test_a_malformed_tensor_names_its_field(message: tensor_pb2.Tensor, reason: str) -> None:
    with pytest.raises(SpecError, match=f"^state: .*{reason}"):
        wire.tensor_from_message(message, "state")


AXES = st.lists(
    st.builds(ActionAxis, WORDS, WORDS, st.floats(-9, -1), st.floats(1, 9)),
    min_size=1,
    max_size=3,
    unique_by=lambda a: a.name,
).map(tuple)
ACTIONS = st.builds(
    ActionSpec,
    AXES,
    st.sampled_from(["delta", "absolute", "velocity", "unknown"]),
    *[WORDS] * 4,
    st.floats(0.1, 1000),
)
BOUND = st.none() | st.floats(-5, 5)
ARRAY_SPECS = st.builds(
    ArraySpec,
    WORDS,
    st.sampled_from(["float32", "uint8", "int64"]),
    st.lists(st.integers(-1, 9), max_size=3).map(tuple),
    low=BOUND,
    high=BOUND,
    unit=WORDS,
)
OBSERVATIONS = st.builds(ObservationSpec, st.lists(ARRAY_SPECS, max_size=3).map(tuple), st.integers(1, 5))
ROBOTS = ACTIONS.flatmap(
    lambda action: st.builds(
        RobotSpec,
        WORDS,
        st.just(action),
        OBSERVATIONS,
        st.sampled_from(["repeat"] if action.kind == "absolute" else ["zero", "repeat"]),
        st.sets(st.sampled_from(action.names)).map(tuple),
        st.just(()) | st.tuples(*[st.floats(0, 2)] * action.size),
    )
)


@given(ROBOTS)
def test_a_robot_spec_survives(robot: RobotSpec) -> None:
    assert wire.robot_spec_from_message(wire.robot_spec_to_message(robot)) == robot


@pytest.mark.parametrize("field", ["kind", "hold"])
def test_a_word_that_is_none_of_the_allowed_is_refused(field: str) -> None:
    robot = RobotSpec(
        "r", ActionSpec((ActionAxis("x", "m", -1, 1),), "delta", "", "", "", "", 20.0), ObservationSpec(())
    )
    message = wire.robot_spec_to_message(robot)
    setattr(message.action if field == "kind" else message, field, "sideways")
    with pytest.raises(SpecError, match=f"^{field}: got 'sideways', expected one of"):
        wire.robot_spec_from_message(message)


EXECUTIONS = st.builds(
    Execution,
    st.integers(0, 64),
    st.floats(0, 2),
    st.integers(0, 16),
    st.builds(
        Selection,
        st.sampled_from(["default", "min", "mean", "lower_bound"]),
        st.floats(-2, 2),
        st.sampled_from(["argmax", "softmax", "margin", "first", "random"]),
        st.floats(0.1, 2),
        st.floats(0, 2),
    ),
)


@given(EXECUTIONS)
def test_execution_settings_survive(execution: Execution) -> None:
    assert wire.execution_from_message(wire.execution_to_message(execution)) == execution


@given(WORDS)
def test_a_task_survives(instruction: str) -> None:
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    back = wire.task_from_message(wire.task_to_message(Task(instruction, image)))
    assert back.instruction == instruction
    np.testing.assert_array_equal(back.goal_image, image)


def test_a_goal_image_of_another_form_is_refused() -> None:
    with pytest.raises(SpecError, match=r"task.goal_image: got float32 of shape \(3, 2, 2\)"):
        wire.task_from_message(wire.task_to_message(Task("", np.zeros((3, 2, 2), np.float32))))  # type: ignore[arg-type]


def decision(members: int = 2) -> Decision:
    rng = np.random.default_rng(0)
    return Decision(
        candidates=rng.normal(size=(3, 4, 2)).astype(np.float32),
        origins=("policy", "policy", "gradient"),
        scores=rng.normal(size=(members, 3)).astype(np.float32),
        values=rng.normal(size=3).astype(np.float32),
        chosen=2,
        committed=1,
        executed=3,
        seed=-7,
        temperature=0.8,
        reduce="mean",
        choose="argmax",
        policy_version="p",
        critic_version="c",
        clipped=5,
        dropped=1,
        cuts=("fewer",),
        timings_s={"score": 0.25},
    )


def same(a: Decision, b: Decision) -> bool:
    arrays = ("candidates", "scores", "values")
    plain = dict.fromkeys(arrays)
    return replace(a, **plain) == replace(b, **plain) and all(
        getattr(a, n).tobytes() == getattr(b, n).tobytes() and getattr(a, n).shape == getattr(b, n).shape
        for n in arrays
    )


@pytest.mark.parametrize("members", [0, 2])
def test_a_decision_survives(members: int) -> None:
    asked = decision(members)
    message = steering_pb2.Decision.FromString(wire.decision_to_message(asked).SerializeToString())
    assert same(wire.decision_from_message(message), asked)


def test_omitted_candidates_cannot_be_executed() -> None:
    back = wire.decision_from_message(wire.decision_to_message(decision(), omit_candidates=True))
    np.testing.assert_array_equal(back.actions, decision().actions)
    assert back.candidates.shape == (3, 4, 2)
    assert np.isnan(back.candidates[:2]).all()


@pytest.mark.parametrize(("field", "value"), [("chosen", 3), ("executed", 4)])
def test_a_decision_that_points_outside_itself_is_refused(field: str, value: int) -> None:
    message = wire.decision_to_message(decision())
    setattr(message, field, value)
    with pytest.raises(SpecError, match=r"^decision: "):
        wire.decision_from_message(message)


@pytest.mark.parametrize("cls", [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, SteerError)])
def test_every_error_comes_back_as_itself(cls: type[SteerError]) -> None:
    back = wire.error_from_status(cls.__name__, cls.status, "what came")
    assert type(back) is cls
    assert str(back) == "what came"


def test_an_error_of_unknown_name_is_known_by_its_status() -> None:
    assert type(wire.error_from_status("Newer", "DEADLINE_EXCEEDED", "late")) is errors.DeadlineError
    assert type(wire.error_from_status("OSError", "UNKNOWN", "?")) is SteerError
