"""A robot with two axes and data small enough to learn within a second."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from policies.backbones.config import TransformerConfig, UnetConfig
from policies.config import TrainingConfig, chunk_sampler
from policies.diffusion.config import DiffusionConfig
from policies.diffusion.objective import DiffusionObjective
from policies.diffusion.policy import DiffusionPolicy
from policies.flow.config import FlowConfig
from policies.flow.objective import FlowObjective
from policies.flow.policy import FlowPolicy
from policies.gaussian.config import GaussianConfig
from policies.gaussian.objective import GaussianObjective
from policies.gaussian.policy import GaussianPolicy
from policies.sampling import ChunkPolicy
from policies.training import ChunkObjective
from steer.action import ActionAxis, ActionSpec
from steer.checkpoints import Checkpoint
from steer.data.frames import Frames
from steer.observation import Batch, ObservationSpec, Task
from steer.robot import RobotSpec
from steer.spec import Array, ArraySpec

STATE = ArraySpec("state", "float32", (4,), ("ee.x", "ee.y", "goal_from_ee.x", "goal_from_ee.y"))
IMAGE = ArraySpec("camera.front", "uint8", (16, 16, 3))
ACTION = ActionSpec(
    axes=(ActionAxis("dx", "m", -0.1, 0.1), ActionAxis("gripper", "1", -1.0, 1.0)),
    kind="delta",
    frame="base",
    reference="commanded",
    rotation="none",
    gripper="positive_opens",
    rate_hz=20.0,
)
ROBOT = RobotSpec("toy", ACTION, ObservationSpec((STATE, IMAGE)))
_SIZES: Any = {
    "hidden": 32,
    "expansion": 64,
    "blocks": 1,
    "steps": 60,
    "batch_size": 64,
    "warmup_steps": 10,
    "image_features": 8,
}
SMALL = DiffusionConfig(**_SIZES)
SMALL_FLOW = FlowConfig(**_SIZES)
SMALL_GAUSSIAN = GaussianConfig(**_SIZES)
UNET: Any = {"backbone": "unet", "unet": UnetConfig(channels=(16, 32), condition=32)}
TRANSFORMER: Any = {"backbone": "transformer", "transformer": TransformerConfig(width=32, blocks=1)}

# Every family and backbone, small.
VARIANTS: Mapping[str, TrainingConfig] = {
    "diffusion_mlp": SMALL,
    "diffusion_unet": replace(SMALL, **UNET),
    "diffusion_transformer": replace(SMALL, **TRANSFORMER),
    "flow_mlp": SMALL_FLOW,
    "flow_unet": replace(SMALL_FLOW, **UNET, time_sampling="beta"),
    "flow_transformer": replace(SMALL_FLOW, **TRANSFORMER),
    "gaussian": SMALL_GAUSSIAN,
    "gaussian_constant": replace(SMALL_GAUSSIAN, std="constant"),
}
FAMILIES: Mapping[type[TrainingConfig], tuple[type[ChunkObjective[Any]], type[Any]]] = {
    DiffusionConfig: (DiffusionObjective, DiffusionPolicy),
    FlowConfig: (FlowObjective, FlowPolicy),
    GaussianConfig: (GaussianObjective, GaussianPolicy),
}


def frames(actions: Array, observations: Mapping[str, Array] | None = None, length: int = 9) -> Frames:
    """Episodes of `length` actions from float32[F, 2] actions (F a multiple of length + 1) and observations."""
    total = len(actions)
    episodes = total // (length + 1)
    assert episodes * (length + 1) == total
    rng = np.random.default_rng(7)
    given = {"state": rng.normal(size=(total, 4)).astype(np.float32)} if observations is None else dict(observations)
    return Frames(
        robot=ROBOT,
        observations=given,
        actions=actions.astype(np.float32),
        rewards=np.zeros(total, np.float32),
        starts=np.arange(episodes) * (length + 1),
        lengths=np.full(episodes, length),
        terminated=np.zeros(episodes, np.bool_),
        success=np.zeros(episodes, np.bool_),
        labelled=np.ones(episodes, np.bool_),
        episode_of=np.repeat(np.arange(episodes), length + 1),
        tasks=(Task(),) * episodes,
        ids=tuple(str(i) for i in range(episodes)),
    )


def random_frames(total: int = 200) -> Frames:
    """Actions that depend on the state."""
    rng = np.random.default_rng(3)
    state = rng.normal(size=(total, 4)).astype(np.float32)
    actions = np.stack([np.tanh(state[:, 2]) * 0.1, np.sign(state[:, 0])], axis=-1)
    return frames(actions, {"state": state})


def image_frames(total: int = 200) -> Frames:
    """Black images go with one action, white ones with its opposite."""
    rng = np.random.default_rng(5)
    white = rng.integers(0, 2, total // 10).repeat(10)
    images = np.broadcast_to((white * 255).astype(np.uint8)[:, None, None, None], (total, 16, 16, 3))
    sign = white * 2.0 - 1
    actions = np.stack([sign * 0.05, sign * 0.5], axis=-1)
    state = rng.normal(size=(total, 4)).astype(np.float32)
    return frames(actions, {"state": state, "camera.front": images})


def make(config: TrainingConfig, data: Frames, seed: int = 0, start: Checkpoint | None = None) -> ChunkObjective[Any]:
    """The objective of the family that `config` belongs to."""
    return FAMILIES[type(config)][0](config, data, seed, start)


def trained(config: TrainingConfig, data: Frames, steps: int | None = None, seed: int = 0) -> ChunkObjective[Any]:
    """An objective after `steps` updates (the configuration's by default)."""
    config = config if steps is None else replace(config, steps=steps)
    objective = make(config, data, seed)
    sampler = chunk_sampler(config, data, seed)
    for _ in range(config.steps):
        objective.step(sampler.sample())
    return objective


def saved(objective: ChunkObjective[Any], path: Path) -> ChunkPolicy:
    """The policy, through a checkpoint folder."""
    objective.save(path)
    policy: ChunkPolicy = FAMILIES[type(objective.config)][1].load(path)
    return policy


def batch(policy: ChunkPolicy, rows: int = 1, seed: int = 0) -> Batch:
    """Random conforming observations."""
    rng = np.random.default_rng(seed)
    return Batch.stack([policy.spec.observation.generate(rng) for _ in range(rows)])
