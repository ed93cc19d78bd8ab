"""Small known models for the tests of the vocabulary and the engine: answers can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from steer.action import ActionAxis, ActionSpec
from steer.critic import CriticSpec
from steer.noise import candidate_noise
from steer.observation import Batch, Observation, ObservationSpec
from steer.policy import PolicySpec
from steer.robot import RobotSpec
from steer.spec import ArraySpec

ACTION = ActionSpec(
    (ActionAxis("dx", "m", -1.0, 1.0), ActionAxis("dy", "m", -1.0, 1.0)),
    "delta",
    "base",
    "commanded",
    "none",
    "none",
    20.0,
)
OBSERVATION = ObservationSpec((ArraySpec("state", "float32", (2,), ("ee.x", "ee.y")),))
ROBOT = RobotSpec("toy", ACTION, OBSERVATION)


class ToyPolicy:
    """A chunk is the state plus temperature times noise, repeated over H steps."""

    version = "toy-policy"

    def __init__(
        self, horizon: int = 4, scale: float = 0.3, spoil: tuple[int, ...] = (), spoilt: float = np.nan
    ) -> None:
        """spoil: candidates that are `spoilt` throughout."""
        self.spec = PolicySpec(OBSERVATION, ACTION, horizon)
        self.scale = scale
        self.spoil, self.spoilt = spoil, spoilt
        self.encodes = 0

    def encode(self, observations: Batch) -> np.ndarray:
        self.encodes += 1
        return observations.arrays["state"][:, -1]

    def sample(self, context, num_samples, seeds, temperature=1.0, committed=None):
        noise = candidate_noise(seeds, num_samples, (self.spec.horizon, 2))
        chunks = (context[:, None, None] + self.scale * temperature * noise).astype(np.float32)
        for k in self.spoil:
            chunks[:, k] = self.spoilt
        return chunks


class ToyCritic:
    """Member m scores minus the distance of the summed scored steps to (m, 0)."""

    version = "toy-critic"

    def __init__(self, prefixes: tuple[int, ...] = (3, 4), members: int = 2, **spec: object) -> None:
        self.spec = replace(CriticSpec(OBSERVATION, ACTION, prefixes, members, 0.98), **spec)
        self.encodes = 0
        self.scored: list[np.ndarray] = []

    def encode(self, observations: Batch) -> np.ndarray:
        self.encodes += 1
        return observations.arrays["state"][:, -1]

    def score(self, context, actions):
        self.scored.append(actions)
        reached = context[:, None] + actions.sum(axis=2)
        targets = np.array([[m, 0.0] for m in range(self.spec.members)], np.float32)
        return -np.linalg.norm(reached[None] - targets[:, None, None], axis=-1).astype(np.float32)


def observe(x: float = 0.0, y: float = 0.0) -> Observation:
    return Observation.single({"state": np.array([x, y], np.float32)})
