"""Small random data for critics: a hand, a cube, a goal, and the names that say so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from critics.config import CriticConfig
from critics.objective import CriticObjective, objective
from critics.q_critic import QCritic
from steer.action import ActionAxis, ActionSpec
from steer.data.frames import Frames
from steer.observation import Batch, ObservationSpec, Task
from steer.robot import RobotSpec
from steer.spec import ArraySpec

STATE_NAMES = (
    *("ee.x", "ee.y", "ee.z", "ee.yaw"),
    *("cube.x", "cube.y", "cube.z", "cube.sin4yaw", "cube.cos4yaw"),
    *("goal.x", "goal.y"),
    *("cube_from_ee.x", "cube_from_ee.y", "cube_from_ee.z"),
)
STATE = ArraySpec("state", "float32", (len(STATE_NAMES),), STATE_NAMES)
ACTION = ActionSpec(
    axes=(
        *(ActionAxis(name, "m", -0.025, 0.025) for name in ("dx", "dy", "dz")),
        ActionAxis("dyaw", "rad", -0.15, 0.15),
        ActionAxis("gripper", "1", -1.0, 1.0),
    ),
    kind="delta",
    frame="base",
    reference="commanded",
    rotation="rpy",
    gripper="positive_opens",
    rate_hz=20.0,
)
ROBOT = RobotSpec("toy", ACTION, ObservationSpec((STATE,)))


def frames_of(rewards: Sequence[np.ndarray], seed: int = 0) -> Frames:
    rng = np.random.default_rng(seed)
    lengths = np.array([len(r) for r in rewards], np.int64)
    total = int((lengths + 1).sum())
    success = np.array([r[-1] > 0 for r in rewards])
    return Frames(
        robot=ROBOT,
        observations={"state": rng.uniform(-0.2, 0.2, (total, len(STATE_NAMES))).astype(np.float32)},
        actions=(rng.uniform(-1, 1, (total, ACTION.size)) * ACTION.high).astype(np.float32),
        rewards=np.concatenate([np.append(r, 0) for r in rewards]).astype(np.float32),
        starts=np.cumsum(lengths + 1) - (lengths + 1),
        lengths=lengths,
        terminated=success,
        success=success,
        labelled=np.ones(len(rewards), np.bool_),
        episode_of=np.repeat(np.arange(len(rewards)), lengths + 1),
        tasks=(Task(),) * len(rewards),
        ids=tuple(str(i) for i in range(len(rewards))),
    )


def candidates_of(frames: Frames, count: int = 6, horizon: int = 6, seed: int = 1) -> np.ndarray:
    """Random chunks within bounds, float32[F, K, H, A]."""
    shape = (len(frames), count, horizon, ACTION.size)
    return (np.random.default_rng(seed).uniform(-1, 1, shape) * ACTION.high).astype(np.float32)


def rewards_of(lengths: Sequence[int], successes: Sequence[bool]) -> list[np.ndarray]:
    """A reward of 1 on the last step of the successful episodes."""
    return [np.append(np.zeros(n - 1), float(s)).astype(np.float32) for n, s in zip(lengths, successes, strict=True)]


def tiny(**changes: Any) -> CriticConfig:
    """A config that trains in milliseconds."""
    return replace(CriticConfig(hidden=(16, 16), batch_size=32), **changes)


def make_objective(config: CriticConfig, seed: int = 0) -> CriticObjective:
    """Random weights, transforms fitted to random data."""
    frames = frames_of(rewards_of([9, 12], [True, False]))
    return objective(config, frames, candidates_of(frames), seed)


def make_critic(config: CriticConfig, seed: int = 0) -> QCritic:
    """Random weights, transforms fitted to random data."""
    return make_objective(config, seed).critic()


def observe(rows: int, seed: int = 0) -> Batch:
    """Random states."""
    rng = np.random.default_rng(seed)
    spec = ROBOT.observation
    return Batch.stack([spec.generate(rng) for _ in range(rows)])


def chunks_of(rows: int, count: int, steps: int, seed: int = 0) -> np.ndarray:
    """Random chunks within bounds, float32[B, K, E, A]."""
    shape = (rows, count, steps, ACTION.size)
    return (np.random.default_rng(seed).uniform(-1, 1, shape) * ACTION.high).astype(np.float32)
