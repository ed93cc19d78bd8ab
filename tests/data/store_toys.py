"""A tiny robot and its episodes, for the tests of what is stored and sampled."""

from __future__ import annotations

from typing import Any

import numpy as np

from steer.action import ActionAxis, ActionSpec
from steer.data import Episode
from steer.observation import ObservationSpec
from steer.robot import RobotSpec
from steer.spec import ArraySpec

ACTION = ActionSpec(
    (ActionAxis("dx", "m", -1.0, 1.0), ActionAxis("gripper", "1", -1.0, 1.0)),
    "delta",
    "base",
    "measured",
    "none",
    "positive_opens",
    20.0,
)
STATE = ArraySpec("state", "float32", (3,), ("ee.x", "ee.y", "ee.z"))
ROBOT = RobotSpec("toy", ACTION, ObservationSpec((STATE,)))
CAMERA_ROBOT = RobotSpec("toy", ACTION, ObservationSpec((STATE, ArraySpec("camera", "uint8", (4, 5, 3)))))


def make_episode(length: int, value: float = 0.0, robot: RobotSpec = ROBOT, **fields: Any) -> Episode:
    """An episode whose numbers say where they are from: state[t] = value + t, action[t] = (t % 100 / 100, value / 100)."""
    time = np.arange(length + 1, dtype=np.float32)
    observations: dict[str, Any] = {"state": np.repeat((value + time)[:, None], 3, axis=1)}
    if "camera" in robot.observation.keys:
        observations["camera"] = np.broadcast_to(
            time.astype(np.uint8)[:, None, None, None], (length + 1, 4, 5, 3)
        ).copy()
    actions = np.stack([time[:-1] % 100 / 100, np.full(length, value / 100, np.float32)], axis=1)
    defaults: dict[str, Any] = {"rewards": np.zeros(length, np.float32), "terminated": False, "truncated": True}
    return Episode(observations, actions, **{**defaults, **fields})
