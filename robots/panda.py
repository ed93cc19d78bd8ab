"""The Franka Panda in PyBullet behind `steer.robot.Robot`: an arm over an empty floor.

Observation, float32[8], base frame: the point between the finger tips (m), its angles (rad, roll counted from pi), the gripper's
width (m) and last command (+1 open, -1 closed); and the views that were asked for. Actions: see `robots.panda_arm`.
Simulated time stands still between commands: each `send` and each `hold` lets one control period pass.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from jaxtyping import Float

from robots.bullet import BulletClient, advance, connect, load_floor
from robots.camera import Photographer, Renderer, view_specs
from robots.limits import within_bounds
from robots.panda_arm import PANDA_ACTION, RATE_HZ, PandaArm
from steer.errors import RobotError
from steer.observation import ObservationSpec
from steer.options import integer, names, refuse_unknown
from steer.robot import Frame, RobotSpec
from steer.spec import Array, ArraySpec

STATE_NAMES: Final = (
    *("ee.x", "ee.y", "ee.z", "ee.roll", "ee.pitch", "ee.yaw"),
    *("gripper.width", "gripper.command"),
)


class Panda:
    """One simulated Panda.

    images: views to add to the observation, of "front" and "wrist", uint8[image_size, image_size, 3] each.
    seed: of the noise on the home position.
    """

    def __init__(
        self, images: Sequence[str] = (), image_size: int = 128, seed: int = 0, renderer: Renderer = "auto"
    ) -> None:
        state = ArraySpec("state", "float32", (len(STATE_NAMES),), STATE_NAMES, unit="m, rad")
        arrays = (state, *view_specs(images, image_size))
        self._spec = RobotSpec("panda", PANDA_ACTION, ObservationSpec(arrays), keep=("gripper",))
        self._images = tuple(images)
        self._image_size = image_size
        self._rng = np.random.default_rng(seed)
        self._renderer: Renderer = renderer
        self._client: BulletClient | None = None
        self._arm: PandaArm | None = None
        self._photographer: Photographer | None = None
        self._last: Float[np.ndarray, " 7"] | None = None

    @property
    def spec(self) -> RobotSpec:
        return self._spec

    def connect(self) -> None:
        """Start the physics; a second call changes nothing."""
        if self._client is None:
            self._client = connect()
            load_floor(self._client)
            self._arm = PandaArm(self._client)
            self._arm.home(self._rng)

    def home(self) -> None:
        self._connected().home(self._rng)
        self._last = None

    def observe(self) -> Frame:
        """The pose now; images are taken here, so observe no more often than they are needed."""
        arm = self._connected()
        pose = arm.pose()
        state = np.array([*pose.position_m, *pose.angles_rad, pose.width_m, arm.command.gripper], np.float32)
        arrays: dict[str, Array] = {"state": state}
        if self._images:
            self._photographer = self._photographer or Photographer(arm.client, self._renderer)
            for view in self._images:
                arrays[view] = self._photographer.view(view, arm, self._image_size)
        return Frame(arrays, time.monotonic())

    def send(self, action: Float[np.ndarray, " 7"]) -> Float[np.ndarray, " 7"]:
        """Follow one action, within its bounds; `SpecError` if it is not finite or of a wrong shape."""
        arm = self._connected()
        clipped = within_bounds(PANDA_ACTION, action)
        arm.follow(clipped, arm.pose())
        advance(arm.client, 1.0 / RATE_HZ)
        self._last = clipped
        return clipped

    def hold(self) -> None:
        """Let one control period pass in place; the gripper keeps its last command."""
        action = self.spec.hold_action(self._last)
        assert action is not None  # deltas: a zero holds, whatever came before
        self.send(action)

    def close(self) -> None:
        """Free the physics; closing twice does nothing."""
        if self._client is not None:
            self._client.disconnect()
            self._client = self._arm = self._photographer = None

    def _connected(self) -> PandaArm:
        if self._arm is None:
            raise RobotError("the Panda is not connected: call connect() first")
        return self._arm


def create(place: str, options: Mapping[str, str]) -> Panda:
    """`panda:?seed=3&images=front,wrist&image_size=224`; the place is ignored, as it is simulated here."""
    refuse_unknown("robot 'panda'", options, ("seed", "images", "image_size"))
    return Panda(names(options, "images"), integer(options, "image_size", 128), integer(options, "seed", 0))
