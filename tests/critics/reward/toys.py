"""Episodes of a point that succeeds by coming to rest at the goal, seen as a state and as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from critics.reward.config import RewardConfig
from steer.action import ActionAxis, ActionSpec
from steer.data.episode import Episode
from steer.data.frames import Frames, load_frames
from steer.data.store import EpisodeStore
from steer.observation import ObservationSpec
from steer.robot import RobotSpec
from steer.spec import Array, ArraySpec

ACTION = ActionSpec((ActionAxis("dx", "m", -0.1, 0.1),), "delta", "base", "measured", "none", "none", 20.0)
STATE = ArraySpec("state", "float32", (2,), ("ee.x", "goal_from_ee.x"), unit="m")
IMAGE = ArraySpec("camera.front", "uint8", (16, 16, 3))
ROBOT = RobotSpec("point", ACTION, ObservationSpec((STATE, IMAGE)))
STEPS = 12

SMALL = RewardConfig(
    keys=("state",), hidden=(16,), channels=(8, 8), image_size=16, image_shift=1, steps=60, batch_size=32, gap_frames=2
)


def picture(x: float) -> Array:
    """A bright column where the point is."""
    image = np.zeros((16, 16, 3), np.uint8)
    image[:, int(np.clip(16 * x, 0, 15))] = 255
    return image


def episode(rng: np.random.Generator, success: bool | None, goes: bool | None = None) -> Episode:
    """From 0 to 0.9 where it succeeds (`goes`, the label unless given), to at most 0.6 where it does not."""
    goes = bool(success) if goes is None else goes
    end = 0.9 if goes else rng.uniform(0.0, 0.6)
    x = np.linspace(0, end, STEPS + 1) + rng.normal(0, 0.003, STEPS + 1)
    state = np.stack([x, 0.9 - x], -1).astype(np.float32)
    actions = np.clip(np.diff(state[:, :1], axis=0), -0.1, 0.1)
    return Episode(
        {"state": state, "camera.front": np.stack([picture(value) for value in x])},
        actions,
        np.zeros(STEPS, np.float32),
        terminated=goes,
        truncated=not goes,
        success=success,
        success_source="" if success is None else "simulator",
    )


def make_store(path: Path, labels: list[bool | None], seed: int = 0) -> EpisodeStore:
    """Unlabelled episodes go where an even number of them, counted on, says: to the goal and not, in turn."""
    rng = np.random.default_rng(seed)
    store = EpisodeStore.create(path, ROBOT)
    with store.writer() as writer:
        for number, label in enumerate(labels):
            writer.add(episode(rng, label, goes=number % 2 == 0 if label is None else None))
    store.refresh()
    return store


def make_frames(path: Path, labels: list[bool | None], seed: int = 0) -> Frames:
    return load_frames(make_store(path, labels, seed))
