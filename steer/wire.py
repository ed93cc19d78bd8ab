"""Messages of `proto/steer/v1` <-> the vocabulary. Both sides of the wire use this module and nothing else converts.

Tensors travel as raw little-endian bytes: `numpy.frombuffer` on receipt (a read-only view, no copy), one `tobytes` on
sending, no work per element. Whatever does not conform raises `SpecError` that names the field. Knows no socket and no
session; the history of frames is told in `steer.client.window` and rebuilt in `steer.server.sessions`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

import numpy as np

from steer.action import ActionAxis, ActionSpec
from steer.decision import Decision, Request
from steer.errors import SpecError, SteerError, revive
from steer.observation import ObservationSpec, Task
from steer.policy import PolicySpec
from steer.robot import RobotSpec
from steer.selection import Selection
from steer.spec import Array, ArraySpec
from steer.v1 import spec_pb2, steering_pb2, tensor_pb2

MAX_MESSAGE_BYTES = 64 * 2**20
"""Default limit of one message: 50 RGB frames of 640 x 640 fit."""

_DTYPES: dict[tensor_pb2.DType.ValueType, np.dtype[Any]] = {
    tensor_pb2.DTYPE_BOOL: np.dtype("?"),
    tensor_pb2.DTYPE_UINT8: np.dtype("u1"),
    tensor_pb2.DTYPE_INT32: np.dtype("<i4"),
    tensor_pb2.DTYPE_INT64: np.dtype("<i8"),
    tensor_pb2.DTYPE_FLOAT16: np.dtype("<f2"),
    tensor_pb2.DTYPE_FLOAT32: np.dtype("<f4"),
    tensor_pb2.DTYPE_FLOAT64: np.dtype("<f8"),
}
_NAMES = {dtype.newbyteorder("="): number for number, dtype in _DTYPES.items()}


# -- tensors


def tensor_to_message(value: Array, field: str) -> tensor_pb2.Tensor:
    """An array of an allowed dtype, in C order and little-endian."""
    message = tensor_header(value, field)
    message.data = little_endian(value).tobytes()
    return message


def tensor_header(value: Array, field: str) -> tensor_pb2.Tensor:
    """The message without its data; raises `SpecError` that names `field` for a dtype that is not sent."""
    number = _NAMES.get(value.dtype.newbyteorder("="))
    if number is None:
        allowed = sorted(str(dtype) for dtype in _NAMES)
        raise SpecError(
            f"{field}: dtype {value.dtype} cannot be sent, expected one of {allowed}: convert it before sending"
        )
    return tensor_pb2.Tensor(dtype=number, shape=value.shape)


def little_endian(value: Array) -> Array:
    """The array as its bytes travel: C order, little-endian; itself where it is so already."""
    return np.ascontiguousarray(value, value.dtype.newbyteorder("<"))


def tensor_from_message(message: tensor_pb2.Tensor, field: str) -> Array:
    """A read-only view of the message's bytes; raises `SpecError` that names `field`."""
    dtype = _DTYPES.get(message.dtype)
    if dtype is None:
        raise SpecError(
            f"{field}: element type {message.dtype} is unknown, expected one of {sorted(_DTYPES)} (steer.v1.DType)"
        )
    shape = tuple(message.shape)
    wanted = math.prod(shape) * dtype.itemsize
    data = message.data  # once: every access copies
    if len(data) != wanted:
        raise SpecError(
            f"{field}: {len(data)} bytes came for shape {shape} of {dtype}, expected {wanted}: "
            "send the elements in C order without padding"
        )
    array = np.frombuffer(data, dtype)
    if dtype == np.bool_ and array.view(np.uint8).max(initial=0) > 1:
        raise SpecError(f"{field}: a bool tensor holds bytes other than 0 and 1: send one byte per element")
    return array.reshape(shape)


def optional_tensor(owner: Any, field: str) -> Array | None:
    """The tensor called `field` of a message, or None where it is absent."""
    return tensor_from_message(getattr(owner, field), field) if owner.HasField(field) else None


def floats(value: Array, field: str, axes: int) -> Array:
    """Raise `SpecError` unless `value` is float32 with so many axes."""
    if value.dtype != np.float32 or value.ndim != axes:
        raise SpecError(f"{field}: got {value.dtype} of shape {value.shape}, expected float32 with {axes} axes")
    return value


# -- specs


def observation_spec_to_message(spec: ObservationSpec) -> spec_pb2.ObservationSpec:
    arrays = [
        spec_pb2.ArraySpec(
            name=a.name, dtype=a.dtype, shape=a.shape, names=a.names, low=a.low, high=a.high, unit=a.unit
        )
        for a in spec.arrays
    ]
    return spec_pb2.ObservationSpec(arrays=arrays, window=spec.window)


def observation_spec_from_message(message: spec_pb2.ObservationSpec) -> ObservationSpec:
    return ObservationSpec(tuple(_array_spec(a) for a in message.arrays), message.window)


def _array_spec(message: spec_pb2.ArraySpec) -> ArraySpec:
    if message.dtype not in {str(dtype) for dtype in _NAMES}:
        raise SpecError(f"observation {message.name!r}: dtype {message.dtype!r} is none that can be sent")
    return ArraySpec(
        name=message.name,
        dtype=message.dtype,
        shape=tuple(message.shape),
        names=tuple(message.names),
        low=message.low if message.HasField("low") else None,
        high=message.high if message.HasField("high") else None,
        unit=message.unit,
    )


def action_spec_to_message(spec: ActionSpec) -> spec_pb2.ActionSpec:
    axes = [spec_pb2.ActionAxis(name=a.name, unit=a.unit, low=a.low, high=a.high) for a in spec.axes]
    return spec_pb2.ActionSpec(
        axes=axes,
        kind=spec.kind,
        frame=spec.frame,
        reference=spec.reference,
        rotation=spec.rotation,
        gripper=spec.gripper,
        rate_hz=spec.rate_hz,
    )


def action_spec_from_message(message: spec_pb2.ActionSpec) -> ActionSpec:
    return ActionSpec(
        axes=tuple(ActionAxis(a.name, a.unit, a.low, a.high) for a in message.axes),
        kind=_one_of(ActionSpec, "kind", message.kind),
        frame=message.frame,
        reference=message.reference,
        rotation=message.rotation,
        gripper=message.gripper,
        rate_hz=message.rate_hz,
    )


def robot_spec_to_message(spec: RobotSpec) -> spec_pb2.RobotSpec:
    return spec_pb2.RobotSpec(
        name=spec.name,
        action=action_spec_to_message(spec.action),
        observation=observation_spec_to_message(spec.observation),
        hold=spec.hold,
        keep=spec.keep,
        max_step=spec.max_step,
    )


def robot_spec_from_message(message: spec_pb2.RobotSpec) -> RobotSpec:
    return RobotSpec(
        name=message.name,
        action=action_spec_from_message(message.action),
        observation=observation_spec_from_message(message.observation),
        hold=_one_of(RobotSpec, "hold", message.hold),
        keep=tuple(message.keep),
        max_step=tuple(message.max_step),
    )


def policy_to_message(spec: PolicySpec, version: str) -> steering_pb2.PolicyInfo:
    """All of a policy's spec but its observation, which is sent with what a critic wants beside it."""
    return steering_pb2.PolicyInfo(
        version=version,
        action=action_spec_to_message(spec.action),
        horizon=spec.horizon,
        stochastic=spec.stochastic,
        seeding=spec.seeding,
        temperature=spec.temperature,
        inpaints=spec.inpaints,
    )


def policy_from_message(message: steering_pb2.PolicyInfo, observation: ObservationSpec) -> PolicySpec:
    """The spec of a policy that is trained elsewhere."""
    return PolicySpec(
        observation=observation,
        action=action_spec_from_message(message.action),
        horizon=message.horizon,
        stochastic=message.stochastic,
        seeding=_one_of(PolicySpec, "seeding", message.seeding),
        temperature=message.temperature,
        trainable=False,
        inpaints=message.inpaints,
    )


# -- what is asked


@dataclass(frozen=True)
class Execution:
    """How the robot will use the answers; the part of a `Request` that rarely changes. See `Request` for the fields."""

    num_samples: int = 1
    temperature: float = 1.0
    execute: int = 0
    selection: Selection = Selection()

    @classmethod
    def of(cls, request: Request) -> Execution:
        return cls(request.num_samples, request.temperature, request.execute, request.selection)


def execution_to_message(execution: Execution) -> steering_pb2.Execution:
    rules = execution.selection
    if execution.num_samples < 0 or execution.execute < 0:
        raise SpecError(f"{execution.num_samples} samples, {execution.execute} executed steps: neither may be negative")
    return steering_pb2.Execution(
        num_samples=execution.num_samples,
        temperature=execution.temperature,
        execute=execution.execute,
        selection=steering_pb2.Selection(
            reduce=rules.reduce,
            bound=rules.bound,
            choose=rules.choose,
            selection_temperature=rules.selection_temperature,
            margin=rules.margin,
        ),
    )


def execution_from_message(message: steering_pb2.Execution) -> Execution:
    if not message.HasField("selection"):
        return Execution(message.num_samples, message.temperature, message.execute)
    rules = message.selection
    selection = Selection(
        reduce=_one_of(Selection, "reduce", rules.reduce),
        bound=rules.bound,
        choose=_one_of(Selection, "choose", rules.choose),
        selection_temperature=rules.selection_temperature,
        margin=rules.margin,
    )
    return Execution(message.num_samples, message.temperature, message.execute, selection)


def task_to_message(task: Task) -> steering_pb2.Task:
    goal = None if task.goal_image is None else tensor_to_message(task.goal_image, "task.goal_image")
    return steering_pb2.Task(instruction=task.instruction, goal_image=goal)


def task_from_message(message: steering_pb2.Task) -> Task:
    goal = optional_tensor(message, "goal_image")
    if goal is not None and (goal.dtype != np.uint8 or goal.ndim != 3 or goal.shape[2] != 3):
        raise SpecError(
            f"task.goal_image: got {goal.dtype} of shape {goal.shape}, expected uint8 (height, width, 3) in RGB"
        )
    return Task(message.instruction, goal)


# -- what is answered


def decision_to_message(decision: Decision, omit_candidates: bool = False) -> steering_pb2.Decision:
    message = steering_pb2.Decision(
        origins=decision.origins,
        scores=tensor_to_message(decision.scores, "scores"),
        values=tensor_to_message(decision.values, "values"),
        chosen=decision.chosen,
        committed=decision.committed,
        executed=decision.executed,
        seed=decision.seed,
        temperature=decision.temperature,
        reduce=decision.reduce,
        choose=decision.choose,
        policy_version=decision.policy_version,
        critic_version=decision.critic_version,
        clipped=decision.clipped,
        dropped=decision.dropped,
        cuts=decision.cuts,
        timings_s=decision.timings_s,
    )
    field = "chunk" if omit_candidates else "candidates"
    getattr(message, field).CopyFrom(tensor_to_message(getattr(decision, field), field))
    return message


def decision_from_message(message: steering_pb2.Decision) -> Decision:
    """The decision; where candidates were omitted, all but the chosen row are NaN, so that none can be executed."""
    candidates = optional_tensor(message, "candidates")
    if candidates is None:
        chunk = floats(tensor_from_message(message.chunk, "chunk"), "chunk", 2)
        candidates = np.full((len(message.origins), *chunk.shape), np.nan, np.float32)
        if message.chosen < len(candidates):
            candidates[message.chosen] = chunk
    floats(candidates, "candidates", 3)
    _check_counts(message, candidates.shape)
    return Decision(
        candidates=candidates,
        origins=tuple(message.origins),
        scores=floats(tensor_from_message(message.scores, "scores"), "scores", 2),
        values=floats(tensor_from_message(message.values, "values"), "values", 1),
        chosen=message.chosen,
        committed=message.committed,
        executed=message.executed,
        seed=message.seed,
        temperature=message.temperature,
        reduce=message.reduce,
        choose=message.choose,
        policy_version=message.policy_version,
        critic_version=message.critic_version,
        clipped=message.clipped,
        dropped=message.dropped,
        cuts=tuple(message.cuts),
        timings_s=dict(message.timings_s),
    )


def _check_counts(message: steering_pb2.Decision, shape: Sequence[int]) -> None:
    if not (message.chosen < shape[0] == len(message.origins)):
        raise SpecError(
            f"decision: candidate {message.chosen} chosen of {shape[0]} with {len(message.origins)} origins"
        )
    if message.committed + message.executed > shape[1]:
        raise SpecError(f"decision: {message.committed} + {message.executed} steps to run of a chunk of {shape[1]}")


def tensors_from_map(messages: Mapping[str, tensor_pb2.Tensor]) -> dict[str, Array]:
    return {key: tensor_from_message(message, key) for key, message in messages.items()}


def _one_of(owner: type, field: str, text: str) -> Any:
    """`text`, if it is one of the words that the dataclass field `field` allows."""
    allowed = get_args(get_type_hints(owner)[field])
    if text not in allowed:
        raise SpecError(f"{field}: got {text!r}, expected one of {list(allowed)}")
    return text


# -- errors

ERROR_KEY = "steer-error"
"""Trailing metadata that carries the class of an error, because several classes share one gRPC status."""


def error_from_status(name: str, status: str, message: str) -> SteerError:
    """The error a server reported: by the class it named if that is one of ours, otherwise by its gRPC status."""
    error = revive(name, message)
    if error is not None:
        return error
    by_status = next((cls for cls in SteerError.__subclasses__() if cls.status == status), SteerError)
    return revive(by_status.__name__, message) or SteerError(message)
