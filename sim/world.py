"""The world of the task in PyBullet: floor, Panda, one cube, and a goal disc that is only a picture.

Owns the physics client and its in-memory snapshots. Knows poses and time, nothing of rewards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from robots.bullet import advance, connect, load_floor, pybullet
from robots.panda_arm import RATE_HZ, ArmPose, Command, PandaArm
from sim.pick_place import CubePose, Start

CUBE_HALF_M = 0.02
DISC_HEIGHT_M = 0.003
DISC_CORNERS = 32
CUBE_COLOUR = (0.89, 0.29, 0.20, 1.0)
GOAL_COLOUR = (0.16, 0.60, 0.47, 1.0)


@dataclass(frozen=True)
class Snapshot:
    """A moment of the physics: the number of the state in the client, and what the client does not know."""

    number: int
    command: Command


class World:
    """One physics client with everything in it; several may live in one process."""

    def __init__(self, cube_mass_kg: float, cube_friction: float, goal_radius_m: float) -> None:
        self.client = connect()
        load_floor(self.client)
        self.arm = PandaArm(self.client)
        self.cube = self._make_cube(cube_mass_kg, cube_friction)
        self.disc = self._make_disc(goal_radius_m)
        # Every episode starts from this state, so that nothing of the last one (contacts, solver impulses) is left.
        self._pristine: int = self.client.saveState()
        self._open = True

    def reset(self, start: Start, rng: np.random.Generator) -> None:
        """A new episode: cube and disc where `start` says, the arm near its home."""
        self.client.restoreState(stateId=self._pristine)
        upright = pybullet.getQuaternionFromEuler([0.0, 0.0, start.cube_yaw_rad])
        self.client.resetBasePositionAndOrientation(self.cube, [*start.cube_xy_m.tolist(), CUBE_HALF_M], upright)
        self.client.resetBasePositionAndOrientation(
            self.disc, [*start.goal_xy_m.tolist(), DISC_HEIGHT_M], [0.0, 0.0, 0.0, 1.0]
        )
        self.arm.home(rng)

    def tick(self, action: Float[np.ndarray, " 7"], pose: ArmPose) -> None:
        """Command the arm and let one control period pass."""
        self.arm.follow(action, pose)
        advance(self.client, 1.0 / RATE_HZ)

    def cube_pose(self) -> CubePose:
        position, rotation = self.client.getBasePositionAndOrientation(self.cube)
        velocity, _ = self.client.getBaseVelocity(self.cube)
        yaw = pybullet.getEulerFromQuaternion(rotation)[2]
        return CubePose(np.array(position), float(yaw), math.sqrt(sum(v * v for v in velocity)))

    def save(self) -> Snapshot:
        """Keep this moment in memory until `release`."""
        return Snapshot(self.client.saveState(), self.arm.command.copy())

    def restore(self, snapshot: Snapshot) -> None:
        """Return to a kept moment; what follows is bit-identical to what followed it the first time."""
        self.client.restoreState(stateId=snapshot.number)
        self.arm.command = snapshot.command.copy()

    def release(self, snapshot: Snapshot) -> None:
        """Free a kept moment; a closed world has freed them all."""
        if self._open:
            self.client.removeState(snapshot.number)

    def close(self) -> None:
        """Free the physics client; closing twice does nothing."""
        if self._open:
            self._open = False
            self.client.disconnect()

    def _make_cube(self, mass_kg: float, friction: float) -> int:
        half = [CUBE_HALF_M] * 3
        shape = self.client.createCollisionShape(pybullet.GEOM_BOX, halfExtents=half)
        picture = self.client.createVisualShape(pybullet.GEOM_BOX, halfExtents=half, rgbaColor=CUBE_COLOUR)
        cube: int = self.client.createMultiBody(mass_kg, shape, picture, [0.5, 0.0, CUBE_HALF_M])
        self.client.changeDynamics(cube, -1, lateralFriction=friction, spinningFriction=0.005, rollingFriction=0.0001)
        return cube

    def _make_disc(self, radius_m: float) -> int:
        """A flat polygon just above the floor, its normals up: a cylinder would be shaded like a cone."""
        angles = np.linspace(0.0, 2 * math.pi, DISC_CORNERS, endpoint=False)
        corners = [(0.0, 0.0, 0.0), *((radius_m * math.cos(a), radius_m * math.sin(a), 0.0) for a in angles)]
        triangles = [(0, 1 + i, 1 + (i + 1) % DISC_CORNERS) for i in range(DISC_CORNERS)]
        picture = self.client.createVisualShape(
            pybullet.GEOM_MESH,
            vertices=corners,
            indices=[corner for triangle in triangles for corner in triangle],
            normals=[(0.0, 0.0, 1.0)] * len(corners),
            rgbaColor=GOAL_COLOUR,
        )
        disc: int = self.client.createMultiBody(0.0, -1, picture, [0.5, 0.1, DISC_HEIGHT_M])
        return disc
