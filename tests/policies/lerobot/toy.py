"""A spec for workers that are none."""

from __future__ import annotations

from steer.action import ActionAxis, ActionSpec
from steer.observation import ObservationSpec
from steer.policy import PolicySpec
from steer.spec import ArraySpec

ACTION = ActionSpec(
    (ActionAxis("dx", "m", -1.0, 1.0), ActionAxis("dy", "m", -1.0, 1.0)),
    "delta",
    "base",
    "measured",
    "none",
    "none",
    10.0,
)
SPEC = PolicySpec(ObservationSpec((ArraySpec("state", "float32", (3,), ("x", "y", "z")),)), ACTION, 4)
