"""The robot that the fake openpi server was trained for, as a sidecar."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlencode

from steer import registry
from steer.observation import ObservationSpec
from steer.policy import Policy
from steer.robot import RobotSpec, write_robot
from steer.spec import ArraySpec
from tests.fakes import ACTION, STATE

FRONT = ArraySpec("camera.front", "uint8", (12, 16, 3))
ROBOT = RobotSpec("remote arm", ACTION, ObservationSpec((STATE, FRONT)))


def openpi(port: int, folder: Path, **options: object) -> Policy:
    """`openpi://` with the sidecar and H = 4."""
    sidecar = folder / "robot.json"
    write_robot(sidecar, ROBOT)
    given = {"robot": sidecar, "horizon": 4, "timeout_s": 60, **options}
    kept = {key: value for key, value in given.items() if value is not None}
    return registry.policy(f"openpi://127.0.0.1:{port}?{urlencode(kept)}")
