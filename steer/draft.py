"""A robot spec drafted from what can be seen: bounds and shapes are filled in, everything else is "unknown"."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from steer.action import UNKNOWN, ActionAxis, ActionSpec
from steer.observation import ObservationSpec
from steer.robot import RobotSpec
from steer.spec import ArraySpec

TEXTS = ("kind", "frame", "reference", "rotation", "gripper")


def draft_robot(name: str, bounds: Float[np.ndarray, "2 a"], arrays: Sequence[ArraySpec], rate_hz: float) -> RobotSpec:
    """A spec with nameless axes. bounds: the smallest and the largest action, per axis; arrays: of the observation."""
    axes = tuple(
        # An axis that never moved still needs an interval.
        ActionAxis(f"a{i}", UNKNOWN, float(low), float(high if high > low else low + 1.0))
        for i, (low, high) in enumerate(bounds.T)
    )
    action = ActionSpec(axes, "unknown", UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, rate_hz)
    return RobotSpec(name, action, ObservationSpec(tuple(arrays)))


def unknown_fields(robot: RobotSpec) -> list[str]:
    """What a person still has to state before this spec can match another."""
    action = robot.action
    axes = [f"axis {axis.name!r} unit" for axis in action.axes if axis.unit == UNKNOWN]
    return [name for name in TEXTS if getattr(action, name) == UNKNOWN] + axes
