"""`steer/PickPlace-v0`: the task as a gymnasium environment, deterministic from its seed, with exact save and restore.

An episode ends with reward 1 at success (terminated), or after `horizon` ticks (truncated). Every other reward is 0.
Owns a physics client of its own; close it. Does not know where actions come from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Final, SupportsFloat

import gymnasium
import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from robots.camera import VIDEO, Photographer, Renderer, view_specs
from robots.limits import within_bounds
from robots.panda_arm import PANDA_ACTION, RATE_HZ
from sim.pick_place import INSTRUCTION, STATE_SPEC, Box, Scene, draw_start, goal_box, seen_from, state, succeeded
from sim.world import Snapshot, World
from steer.errors import ConfigError
from steer.observation import ObservationSpec
from steer.robot import RobotSpec
from steer.spec import Array, ArraySpec

ENV_ID: Final = "steer/PickPlace-v0"


@dataclass
class State:
    """A moment of one environment, opaque, in memory. `release()` it, or use it as a context manager."""

    _world: World
    _snapshot: Snapshot
    _goal_xy_m: Float[np.ndarray, " 2"]
    _tick: int
    _ended: bool
    _rng: Mapping[str, Any]
    _released: bool = False

    def release(self) -> None:
        """Free the memory; releasing twice, or after the environment was closed, does nothing."""
        if not self._released:
            self._released = True
            self._world.release(self._snapshot)

    def __enter__(self) -> State:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class PickPlace(gymnasium.Env[dict[str, Any], NDArray[np.float32]]):
    """Put the cube on the disc.

    images: views to add to the observation, of "front" and "wrist", uint8[image_size, image_size, 3] each.
    goal_tolerance_m, cube_mass_kg, cube_friction, goal_box_m, gripper_offset_m: change them to shift the task away from its
        training data. goal_box_m: where goals lie, ((low x, low y), (high x, high y)); empty: where they always lay.
        gripper_offset_m: x, y, z from where the arm reports its finger tips to where they are, in the hand's frame.
    renderer: "cpu" (TinyRenderer), "gpu" (EGL), or "auto".
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": int(RATE_HZ)}  # noqa: RUF012  # as in the base

    def __init__(
        self,
        *,
        render_mode: str | None = None,
        images: Sequence[str] = (),
        image_size: int = 128,
        render_size: int = 240,
        horizon: int = 120,
        goal_tolerance_m: float = 0.06,
        cube_mass_kg: float = 0.05,
        cube_friction: float = 1.0,
        goal_box_m: Box | tuple[()] = (),
        gripper_offset_m: Sequence[float] = (0.0, 0.0, 0.0),
        renderer: Renderer = "auto",
    ) -> None:
        positive = {"goal_tolerance_m": goal_tolerance_m, "cube_mass_kg": cube_mass_kg, "render_size": render_size}
        for name, value in {"horizon": horizon, **positive}.items():
            if not value > 0:
                raise ConfigError(f"{name} is {value}, expected a positive number")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ConfigError(
                f"render_mode is {render_mode!r}, expected one of {self.metadata['render_modes']} or None"
            )
        self.render_mode = render_mode
        self._views = tuple(images)
        self._image_size = image_size
        self._render_size = render_size
        self._horizon = horizon
        self._tolerance_m = goal_tolerance_m
        self._goal_box_m = goal_box(goal_box_m) if goal_box_m else None
        self._offset_m = np.array(gripper_offset_m, np.float64)
        if self._offset_m.shape != (3,) or not np.isfinite(self._offset_m).all():
            raise ConfigError(f"gripper_offset_m is {gripper_offset_m!r}, expected x, y and z in metres")
        self._renderer: Renderer = renderer
        self._camera: Photographer | None = None
        self._world = World(cube_mass_kg, cube_friction, goal_tolerance_m)
        self._goal_xy_m = np.zeros(2)
        self._tick = 0
        self._ended = True
        self.robot_spec = _robot_spec(self._views, image_size)
        self.action_space = gymnasium.spaces.Box(PANDA_ACTION.low, PANDA_ACTION.high, dtype=np.float32)
        self.observation_space = gymnasium.spaces.Dict(
            {spec.name: _box(spec) for spec in self.robot_spec.observation.arrays}
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Array], dict[str, Any]]:
        """Start an episode; with the same seed, the same one bit for bit."""
        super().reset(seed=seed)
        start = draw_start(self.np_random, self._goal_box_m)
        self._world.reset(start, self.np_random)
        self._goal_xy_m = start.goal_xy_m
        self._tick = 0
        self._ended = False
        return self.observe(), _info(success=False)

    def step(self, action: NDArray[np.float32]) -> tuple[dict[str, Array], SupportsFloat, bool, bool, dict[str, Any]]:
        """One control tick (50 ms). Actions outside the bounds are clipped; `SpecError` if not finite or of a wrong shape."""
        if self._ended:
            raise gymnasium.error.ResetNeeded("the episode has ended or none has begun: call reset()")
        given = np.asarray(action, np.float32)  # gymnasium's callers bring lists and doubles
        self._world.tick(within_bounds(PANDA_ACTION, given), self._world.arm.pose())
        self._tick += 1
        scene = self._scene()
        success = succeeded(scene, self._tolerance_m)
        truncated = self._tick >= self._horizon and not success
        self._ended = success or truncated
        return self._observe(scene), float(success), success, truncated, _info(success)

    def render(self) -> NDArray[np.uint8] | None:
        """uint8[render_size, render_size, 3], a picture for people."""
        if self.render_mode is None:
            return None
        return self._photographer().take(VIDEO, self._render_size, self._render_size)

    def observe(self) -> dict[str, Array]:
        """The observation of this moment, measured anew."""
        return self._observe(self._scene())

    def save(self) -> State:
        """Keep this moment: physics, commanded target, goal, tick and random numbers. Costs milliseconds; `release` it."""
        rng = self.np_random.bit_generator.state
        return State(self._world, self._world.save(), self._goal_xy_m.copy(), self._tick, self._ended, rng)

    def restore(self, state: State) -> dict[str, Array]:
        """Return to a moment of this environment and observe it; what follows is bit-identical to the first time."""
        if state._world is not self._world or state._released:
            raise ConfigError("this state was released or saved by another environment: restore what this one saved")
        self._world.restore(state._snapshot)
        self._goal_xy_m = state._goal_xy_m.copy()
        self._tick = state._tick
        self._ended = state._ended
        self.np_random.bit_generator.state = state._rng
        return self.observe()

    def close(self) -> None:
        """Free the physics client."""
        self._world.close()

    def _scene(self) -> Scene:
        arm = self._world.arm
        return Scene(arm.pose(), self._world.cube_pose(), self._goal_xy_m, arm.command.gripper)

    def _observe(self, scene: Scene) -> dict[str, Array]:
        reported = replace(scene, arm=seen_from(scene.arm, self._offset_m)) if self._offset_m.any() else scene
        observation: dict[str, Array] = {STATE_SPEC.name: state(reported)}
        for view in self._views:
            observation[view] = self._photographer().view(view, self._world.arm, self._image_size)
        return observation

    def _photographer(self) -> Photographer:
        """Made for the first image, as most environments never take one."""
        if self._camera is None:
            self._camera = Photographer(self._world.client, self._renderer)
        return self._camera


def _robot_spec(views: tuple[str, ...], image_size: int) -> RobotSpec:
    arrays = (STATE_SPEC, *view_specs(views, image_size))
    return RobotSpec("panda-pick-place", PANDA_ACTION, ObservationSpec(arrays), keep=("gripper",))


def _box(spec: ArraySpec) -> gymnasium.spaces.Box:
    low, high = (-np.inf if spec.low is None else spec.low), (np.inf if spec.high is None else spec.high)
    return gymnasium.spaces.Box(low, high, spec.shape, np.dtype(spec.dtype).type)


def _info(success: bool) -> dict[str, Any]:
    return {"success": success, "task": INSTRUCTION}
