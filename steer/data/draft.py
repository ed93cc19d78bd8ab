"""A robot spec drafted from data alone: what numbers can tell is filled in, everything else is "unknown"."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from steer.action import UNKNOWN, ActionAxis, ActionSpec
from steer.observation import ObservationSpec
from steer.robot import RobotSpec
from steer.spec import Array, ArraySpec

TEXTS = ("kind", "frame", "reference", "rotation", "gripper")


def draft_robot(name: str, bounds: Float[np.ndarray, "2 a"], frames: Mapping[str, Array], rate_hz: float) -> RobotSpec:
    """A spec that the data conform to.

    bounds: the smallest and the largest action of the data, per axis; frames: key -> [any, ...], for dtypes and shapes.
    """
    axes = tuple(
        # A constant axis still needs an interval.
        ActionAxis(f"action{i}", UNKNOWN, float(low), float(high if high > low else low + 1.0))
        for i, (low, high) in enumerate(bounds.T)
    )
    arrays = tuple(ArraySpec(key, str(value.dtype), value.shape[1:]) for key, value in sorted(frames.items()))
    action = ActionSpec(axes, "unknown", UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, rate_hz)
    return RobotSpec(name, action, ObservationSpec(arrays))


def unknown_fields(robot: RobotSpec) -> list[str]:
    """What a person still has to state before this spec can match another."""
    action = robot.action
    axes = [f"axis {axis.name!r} unit" for axis in action.axes if axis.unit == UNKNOWN]
    return [name for name in TEXTS if getattr(action, name) == UNKNOWN] + axes
