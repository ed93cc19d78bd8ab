"""A tiny gymnasium environment and models with known answers; no physics, no torch.

The point of `FakeReach-v0` starts somewhere, an action is added to it, and it succeeds near the fake critic's target. Options make
it misbehave at a chosen seed, as real environments do.
"""

from __future__ import annotations

import os
import signal
from typing import Any, ClassVar

import gymnasium
import numpy as np

from steer.engine import Engine
from steer.environment import Environment
from steer.evaluation.setup import Bench, Facts
from steer.registry import Family
from steer.steering import LocalSteering
from tests.fakes import ROBOT, TARGET, FakeCritic, FakePolicy

ENV_ID = "tests.evaluation.fakes:FakeReach-v0"
PLAIN_ID = "tests.evaluation.fakes:FakePlainReach-v0"
TOLERANCE_M = 0.025
LIMIT = 12


class Reach(gymnasium.Env[Any, Any]):
    """Carries a robot spec; the observation is a dict with the key "state"."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 20}
    robot_spec = ROBOT

    def __init__(self, render_mode: str | None = None, die_at: int = -1, raise_at: int = -1, hang_at: int = -1) -> None:
        self.render_mode = render_mode
        self.observation_space = gymnasium.spaces.Dict({"state": gymnasium.spaces.Box(-9, 9, (3,), np.float32)})
        self.action_space = gymnasium.spaces.Box(-0.1, 0.1, (3,), np.float32)
        self._die_at, self._raise_at, self._hang_at = die_at, raise_at, hang_at
        self._state = np.zeros(3, np.float32)
        self._tick = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed == self._die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if seed == self._raise_at:
            raise ValueError("the gripper fell off")
        if seed == self._hang_at:
            signal.pause()
        self._state = self.np_random.uniform(-0.15, 0.15, 3).astype(np.float32)
        self._tick = 0
        return self._observe(), {"task": "reach the point"}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._state = (self._state + action).astype(np.float32)
        self._tick += 1
        success = bool(np.linalg.norm(self._state - TARGET) < TOLERANCE_M)
        return self._observe(), float(success), success, self._tick >= LIMIT and not success, {"success": success}

    def render(self) -> Any:
        picture = np.full((32, 48, 3), 230, np.uint8)
        row, column = np.clip((self._state[:2] + 0.2) * (80, 120), 2, (29, 45)).astype(int)
        picture[row - 2 : row + 2, column - 2 : column + 2] = (40, 90, 200)
        return picture

    def _observe(self) -> Any:
        return {"state": self._state.copy()}


class PlainReach(Reach):
    """The same as strangers write them: no robot spec, the observation is the vector itself, no pictures."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": [], "render_fps": 20}
    robot_spec = None  # type: ignore[assignment]  # nothing is carried

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = gymnasium.spaces.Box(-9, 9, (3,), np.float32)

    def _observe(self) -> Any:
        return self._state.copy()


gymnasium.register("FakeReach-v0", Reach)
gymnasium.register("FakePlainReach-v0", PlainReach)

POLICY = Family("reach", "steps towards the origin", lambda name: FakePolicy())
CRITIC = Family("reach", "prefers what ends near the target", lambda name: FakeCritic(prefixes=(2, 4)))


def build(**options: Any) -> Bench:
    """What a worker builds."""
    environment = Environment(ENV_ID, options)
    policy, critic = FakePolicy(), FakeCritic(prefixes=(2, 4))
    facts = Facts(environment.robot, policy.version, critic.version, critic.spec.gamma, critic.spec.prefixes)
    return Bench(environment, LocalSteering(Engine(policy, critic), environment.robot), facts)
