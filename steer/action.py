"""What an action means: `ActionSpec`, and the checks every chunk passes before it is scored or sent.

A chunk is float32[H, A] in the robot's own units, un-normalised: H steps at `rate_hz`, A axes in the order of `axes`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from steer.errors import SpecError

UNKNOWN = "unknown"


@dataclass(frozen=True)
class ActionAxis:
    """One axis: its name ("dx", "gripper"), unit ("m", "rad", "1"), and inclusive bounds in that unit."""

    name: str
    unit: str
    low: float
    high: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low < self.high):
            raise SpecError(f"action axis {self.name!r}: bounds [{self.low}, {self.high}] are not a finite interval")


@dataclass(frozen=True)
class ActionSpec:
    """Everything two sides must agree on before one may drive the other.

    "unknown" is a legal value of the text fields and never matches silently, not even another "unknown".

    kind: delta, absolute or velocity.
    frame: the frame the numbers are in ("base", "tool", "joint").
    reference: what a delta is added to ("measured", "commanded", "chunk_start"; "none" for absolute commands).
    rotation: form of the rotation axes ("rpy", "axis_angle", "quaternion_xyzw", "none").
    gripper: which sign opens ("positive_opens", "positive_closes", "none").
    rate_hz: control rate; one step of a chunk lasts 1 / rate_hz seconds.
    """

    axes: tuple[ActionAxis, ...]
    kind: Literal["delta", "absolute", "velocity", "unknown"]
    frame: str
    reference: str
    rotation: str
    gripper: str
    rate_hz: float

    def __post_init__(self) -> None:
        if not self.axes:
            raise SpecError("action spec has no axes: an action needs at least one")
        if not (np.isfinite(self.rate_hz) and self.rate_hz > 0):
            raise SpecError(f"action spec: rate_hz is {self.rate_hz}, expected a positive rate")

    @property
    def size(self) -> int:
        """A, the number of axes."""
        return len(self.axes)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(axis.name for axis in self.axes)

    @cached_property
    def low(self) -> Float[np.ndarray, " a"]:
        return np.array([axis.low for axis in self.axes], np.float32)

    @cached_property
    def high(self) -> Float[np.ndarray, " a"]:
        return np.array([axis.high for axis in self.axes], np.float32)

    def differences(self, other: ActionSpec, accept_unknown: bool = False) -> list[str]:
        """Every field in which `other` differs, in words; empty when one side may drive the other.

        accept_unknown: let a field that either side calls "unknown" pass.
        """
        problems = []
        if self.names != other.names:
            problems.append(f"action axes: {list(self.names)} against {list(other.names)}")
        else:
            for mine, theirs in zip(self.axes, other.axes, strict=True):
                for part in fields(ActionAxis):
                    a, b = getattr(mine, part.name), getattr(theirs, part.name)
                    if a != b and not (accept_unknown and UNKNOWN in (a, b)):
                        problems.append(f"action axis {mine.name!r} {part.name}: {a} against {b}")
        for name in ("kind", "frame", "reference", "rotation", "gripper"):
            a, b = getattr(self, name), getattr(other, name)
            if UNKNOWN in (a, b):
                if not accept_unknown:
                    problems.append(
                        f"action {name}: {a!r} against {b!r}: 'unknown' matches nothing, state it in the sidecar"
                    )
            elif a != b:
                problems.append(f"action {name}: {a!r} against {b!r}")
        if self.rate_hz != other.rate_hz:
            problems.append(f"action rate_hz: {self.rate_hz} against {other.rate_hz}")
        return problems

    def validate(self, actions: Float[np.ndarray, "*lead a"], name: str = "actions") -> None:
        """Raise `SpecError` unless `actions` are finite float32 of A axes within bounds."""
        self.check_shape(actions, name)
        if not np.isfinite(actions).all():
            where = [int(i) for i in np.argwhere(~np.isfinite(actions))[0]]
            raise SpecError(f"{name}: axis {self.names[where[-1]]!r} at {where} is not finite")
        outside = (actions < self.low) | (actions > self.high)
        if outside.any():
            at = tuple(int(i) for i in np.argwhere(outside)[0])
            axis = self.axes[at[-1]]
            raise SpecError(
                f"{name}: axis {axis.name!r} = {actions[at]} {axis.unit}, expected [{axis.low}, {axis.high}]"
            )

    def check_shape(self, actions: Float[np.ndarray, "*lead a"], name: str = "actions") -> None:
        """Raise `SpecError` unless `actions` are float32 with A axes last."""
        if not isinstance(actions, np.ndarray) or actions.dtype != np.float32:
            kind = actions.dtype if isinstance(actions, np.ndarray) else type(actions).__name__
            raise SpecError(f"{name}: got {kind}, expected a float32 array")
        if actions.ndim < 1 or actions.shape[-1] != self.size:
            raise SpecError(
                f"{name}: got shape {actions.shape}, expected (..., A={self.size}) for axes {list(self.names)}"
            )

    def clip(
        self, actions: Float[np.ndarray, "*lead a"]
    ) -> tuple[Float[np.ndarray, "*lead a"], Bool[np.ndarray, "*lead a"]]:
        """Actions within bounds, and which numbers had to be moved. NaN stays NaN."""
        clipped = np.clip(actions, self.low, self.high)
        return clipped, (clipped != actions) & ~np.isnan(actions)
