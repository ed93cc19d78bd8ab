"""Small numpy models and a robot with known answers, for tests that need no training and no torch.

The policy's chunk is noise minus a tenth of the state; the critic prefers chunks whose sum ends near a target. Both are
exact, so a test can compute what must come out.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from steer.action import ActionAxis, ActionSpec
from steer.critic import CriticSpec
from steer.noise import candidate_noise
from steer.observation import Batch, ObservationSpec
from steer.policy import PolicySpec
from steer.robot import Frame, RobotSpec
from steer.spec import Array, ArraySpec

H = 4
TARGET = np.array([0.05, -0.02, 0.01], np.float32)
ACTION = ActionSpec(
    axes=tuple(ActionAxis(name, "m", -0.1, 0.1) for name in ("dx", "dy", "dz")),
    kind="delta",
    frame="base",
    reference="measured",
    rotation="none",
    gripper="none",
    rate_hz=20.0,
)
STATE = ArraySpec("state", "float32", (3,), ("ee.x", "ee.y", "ee.z"), unit="m")
ROBOT = RobotSpec("fake arm", ACTION, ObservationSpec((STATE,), window=1))


class FakePolicy:
    """Chunks of 0.02 * noise - 0.1 * the newest state, the same in each of the H steps but for the noise."""

    version = "fake-policy-1"

    def __init__(self, window: int = 2, action: ActionSpec = ACTION, **changes: Any) -> None:
        self.spec = replace(PolicySpec(ObservationSpec((STATE,), window), action, H), **changes)
        self.batch_sizes: list[int] = []

    def encode(self, observations: Batch) -> Array:
        self.batch_sizes.append(len(observations))
        return observations.arrays["state"][:, -1]

    def sample(
        self, context: Array, num_samples: int, seeds: Array, temperature: float = 1.0, committed: Array | None = None
    ) -> Array:
        noise = candidate_noise(seeds, num_samples, (self.spec.horizon, 3))
        return (0.02 * temperature * noise - 0.1 * context[:, None, None, :]).astype(np.float32)


class FakeCritic:
    """Two members, both minus the distance between state + sum of the chunk and the target."""

    version = "fake-critic-1"

    def __init__(self, action: ActionSpec = ACTION, prefixes: tuple[int, ...] = (H,), window: int = 1) -> None:
        self.spec = CriticSpec(ObservationSpec((STATE,), window), action, prefixes, members=2, gamma=0.9)

    def encode(self, observations: Batch) -> Array:
        return observations.arrays["state"][:, -1]

    def score(self, context: Array, actions: Array) -> Array:
        reached = context[:, None] + actions.sum(axis=2)
        distance = np.linalg.norm(reached - TARGET, axis=-1).astype(np.float32)
        return -np.stack([distance, distance])


@dataclass
class FakeRobot:
    """Adds each action to its state and remembers all of them."""

    spec: RobotSpec = ROBOT
    state: Array = field(default_factory=lambda: np.zeros(3, np.float32))
    sent: list[Array] = field(default_factory=list)
    homed: int = 0
    held: int = 0
    connected: bool = False
    now: Any = lambda: 0.0

    def connect(self) -> None:
        self.connected = True

    def home(self) -> None:
        self.homed += 1
        self.state = np.zeros(3, np.float32)

    def observe(self) -> Frame:
        return Frame({"state": self.state.copy()}, self.now())

    def send(self, action: Array) -> Array:
        self.sent.append(action.copy())
        self.state = (self.state + action).astype(np.float32)
        return action

    def hold(self) -> None:
        self.held += 1

    def close(self) -> None:
        self.connected = False
