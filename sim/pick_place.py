"""The pick-and-place task in numbers: where an episode starts, what is observed, and when it has succeeded.

Contract of the observation, float32[20], in the order of `STATE_NAMES`, base frame, metres and radians:

    ee.x ee.y ee.z                the point between the finger tips
    ee.roll ee.pitch ee.yaw       roll is counted from pi, so all three are near zero when the hand points down
    gripper.width                 between the fingers
    cube.x cube.y cube.z          the centre of the cube
    cube.sin4yaw cube.cos4yaw     a cube looks the same after a quarter turn, and four times its yaw as well
    goal.x goal.y                 the centre of the disc
    cube_from_ee.*                cube - ee;   goal_from_cube.*: goal - cube in the plane
    gripper.command               the last command: +1 open, -1 closed

Pure functions of measured poses; knows no simulator.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from jaxtyping import Float

from robots.panda_arm import ArmPose
from steer.errors import ConfigError
from steer.spec import ArraySpec

INSTRUCTION: Final = "put the cube on the disc"

STATE_NAMES: Final = (
    *("ee.x", "ee.y", "ee.z", "ee.roll", "ee.pitch", "ee.yaw"),
    "gripper.width",
    *("cube.x", "cube.y", "cube.z", "cube.sin4yaw", "cube.cos4yaw"),
    *("goal.x", "goal.y"),
    *("cube_from_ee.x", "cube_from_ee.y", "cube_from_ee.z"),
    *("goal_from_cube.x", "goal_from_cube.y"),
    "gripper.command",
)
# Nothing reaches this far; numbers beyond it are clipped so that the observation space has honest bounds.
STATE_LIMIT: Final = 10.0
STATE_SPEC: Final = ArraySpec(
    "state", "float32", (len(STATE_NAMES),), STATE_NAMES, -STATE_LIMIT, STATE_LIMIT, unit="m, rad"
)

# Cube and goal are drawn from this box of the table.
BOX_LOW_M: Final = np.array([0.40, -0.20])
BOX_HIGH_M: Final = np.array([0.60, 0.20])
MAX_CUBE_YAW_RAD: Final = math.pi / 4
LEAST_DISTANCE_M: Final = 0.14
# Of a Panda whose hand points down, from its base, near the table.
REACH_M: Final = 0.75

# What "released, at rest, hand clear" means.
LOW_M: Final = 0.028
RELEASED_WIDTH_M: Final = 0.065
CLEAR_HEIGHT_M: Final = 0.05
REST_SPEED_M_S: Final = 0.05


Box = tuple[tuple[float, float], tuple[float, float]]
"""A rectangle of the table, ((low x, low y), (high x, high y)) in metres."""


@dataclass(frozen=True)
class CubePose:
    """position m[3], yaw rad (about the vertical), speed m/s."""

    position_m: Float[np.ndarray, " 3"]
    yaw_rad: float
    speed_m_s: float


@dataclass(frozen=True)
class Start:
    """How an episode begins."""

    cube_xy_m: Float[np.ndarray, " 2"]
    cube_yaw_rad: float
    goal_xy_m: Float[np.ndarray, " 2"]


@dataclass(frozen=True)
class Scene:
    """One moment of the task, as measured."""

    arm: ArmPose
    cube: CubePose
    goal_xy_m: Float[np.ndarray, " 2"]
    gripper_command: float


def goal_box(corners: Box) -> Box:
    """The same box; raises `ConfigError` for one that the arm cannot reach, or that is none."""
    box = np.array(corners, np.float64)
    if box.shape != (2, 2) or not np.isfinite(box).all() or (box[0] > box[1]).any():
        raise ConfigError(f"goal_box_m is {corners!r}, expected ((low x, low y), (high x, high y)) in metres")
    farthest = float(np.linalg.norm(np.abs(box).max(axis=0)))
    if farthest > REACH_M:
        raise ConfigError(
            f"goal_box_m is {corners!r}: a corner is {farthest:.2f} m away, the arm reaches {REACH_M:g} m"
        )
    return corners


def draw_start(rng: np.random.Generator, goals: Box | None = None) -> Start:
    """Cube uniform in the task's box, goal uniform there too (or in the box `goals`), the goal away from the cube."""
    low, high = (BOX_LOW_M, BOX_HIGH_M) if goals is None else np.array(goals)
    cube = rng.uniform(BOX_LOW_M, BOX_HIGH_M)
    yaw = float(rng.uniform(-MAX_CUBE_YAW_RAD, MAX_CUBE_YAW_RAD))
    goal = rng.uniform(low, high)
    while np.linalg.norm(goal - cube) < LEAST_DISTANCE_M:
        # The cube as well: a small box of goals may lie around it.
        cube, goal = (cube if goals is None else rng.uniform(BOX_LOW_M, BOX_HIGH_M)), rng.uniform(low, high)
    return Start(cube, yaw, goal)


def seen_from(arm: ArmPose, offset_m: Float[np.ndarray, " 3"]) -> ArmPose:
    """The pose that an arm reports whose finger tips are `offset_m` away from where it believes them, in the hand's frame."""
    yaw = arm.angles_rad[2]
    turn = np.array([[math.cos(yaw), -math.sin(yaw), 0.0], [math.sin(yaw), math.cos(yaw), 0.0], [0.0, 0.0, 1.0]])
    return replace(arm, position_m=arm.position_m - turn @ offset_m)


def state(scene: Scene) -> Float[np.ndarray, " 20"]:
    """The observation, see the module's contract."""
    arm, cube = scene.arm, scene.cube
    numbers = np.concatenate(
        [
            arm.position_m,
            arm.angles_rad,
            [arm.width_m],
            cube.position_m,
            [math.sin(4 * cube.yaw_rad), math.cos(4 * cube.yaw_rad)],
            scene.goal_xy_m,
            cube.position_m - arm.position_m,
            scene.goal_xy_m - cube.position_m[:2],
            [scene.gripper_command],
        ]
    )
    observed: Float[np.ndarray, " 20"] = np.clip(numbers, -STATE_LIMIT, STATE_LIMIT).astype(np.float32)
    return observed


def succeeded(scene: Scene, tolerance_m: float) -> bool:
    """Is the cube on the disc: near the goal, low, released with the gripper open, at rest, and the hand clear of it."""
    cube = scene.cube
    return bool(
        np.linalg.norm(scene.goal_xy_m - cube.position_m[:2]) < tolerance_m
        and cube.position_m[2] < LOW_M
        and cube.speed_m_s < REST_SPEED_M_S
        and scene.gripper_command > 0
        and scene.arm.width_m > RELEASED_WIDTH_M
        and scene.arm.position_m[2] > CLEAR_HEIGHT_M
    )
