"""PyBullet without its chatter: one physics client per caller, with the solver settings that all worlds here share.

Keeps nothing global, so that many clients live in one process. Knows no robot and no task.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

from steer.errors import MissingExtraError


@contextmanager
def quiet() -> Iterator[None]:
    """Send what C code prints to standard output and error nowhere while the block runs.

    C buffers its output when it is piped and would print it after ours, where a command promises a last line.
    """
    c_library = ctypes.CDLL(None)
    c_library.fflush(None)
    saved = [(number, os.dup(number)) for number in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for number, _ in saved:
            os.dup2(nowhere, number)
        yield
    finally:
        c_library.fflush(None)
        for number, copy in saved:
            os.dup2(copy, number)
            os.close(copy)
        os.close(nowhere)


try:
    with quiet():
        import pybullet
        import pybullet_data
        from pybullet_utils.bullet_client import BulletClient
except ImportError as error:
    raise MissingExtraError("pybullet", "sim", "the simulated arm") from error

__all__ = ["PHYSICS_HZ", "BulletClient", "advance", "connect", "data_path", "load_floor", "pybullet", "quiet"]

PHYSICS_HZ = 240.0
SOLVER_ITERATIONS = 50
GRAVITY_M_S2 = -9.81
FLOOR_FRICTION = 0.8
FLOOR_COLOUR = (0.62, 0.68, 0.72, 1.0)


def connect() -> BulletClient:
    """A new headless physics client; its `disconnect()` frees it.

    `deterministicOverlappingPairs` makes the order of contacts, and so every episode, a function of its seed alone.
    """
    with quiet():
        client = BulletClient(pybullet.DIRECT)
    client.setGravity(0.0, 0.0, GRAVITY_M_S2)
    client.setPhysicsEngineParameter(
        fixedTimeStep=1.0 / PHYSICS_HZ, numSolverIterations=SOLVER_ITERATIONS, deterministicOverlappingPairs=1
    )
    return client


def load_floor(client: BulletClient) -> int:
    """The ground plane at z = 0, in a colour that a white arm stands out from; its body number."""
    with quiet():
        floor: int = client.loadURDF(data_path("plane.urdf"), flags=pybullet.URDF_IGNORE_VISUAL_SHAPES)
    client.changeDynamics(floor, -1, lateralFriction=FLOOR_FRICTION)
    client.changeVisualShape(floor, -1, rgbaColor=FLOOR_COLOUR)
    return floor


def advance(client: BulletClient, duration_s: float) -> None:
    """Step the physics for a whole number of its time steps."""
    for _ in range(round(duration_s * PHYSICS_HZ)):
        client.stepSimulation()


def data_path(name: str) -> str:
    """Absolute path of a model that pybullet_data brings."""
    return os.path.join(pybullet_data.getDataPath(), name)
