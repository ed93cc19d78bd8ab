"""A stranger's environment, as the README's reader has one: it carries no robot spec. Reach a point with a 4-axis arm."""

from __future__ import annotations

import gymnasium
import numpy as np

ENTRIES = ("ee.x", "ee.y", "ee.z", "ee.yaw", "ball.x", "ball.y", "ball.z")
AXES = ("dx", "dy", "dz", "dyaw")
STEP_M = 0.05
HORIZON = 24


class Reach(gymnasium.Env):
    """Success when the hand is within 4 cm of the ball."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012  gymnasium's own form
    action_space = gymnasium.spaces.Box(-STEP_M, STEP_M, (4,), np.float32)
    observation_space = gymnasium.spaces.Box(-10, 10, (7,), np.float32)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.hand = np.zeros(4)
        self.ball = self.np_random.uniform(-0.3, 0.3, 3)
        self.tick = 0
        return self._state(), {}

    def step(self, action):
        self.hand = self.hand + np.clip(action, -STEP_M, STEP_M)
        self.tick += 1
        near = bool(np.linalg.norm(self.hand[:3] - self.ball) < 0.04)
        return self._state(), float(near), near, self.tick >= HORIZON and not near, {"is_success": near}

    def render(self):
        picture = np.full((64, 64, 3), 240, np.uint8)
        for (x, y), colour in ((self.ball[:2], (200, 60, 40)), (self.hand[:2], (30, 60, 90))):
            row, column = np.clip(32 + 60 * np.array([y, x]), 2, 61).astype(int)
            picture[row - 2 : row + 2, column - 2 : column + 2] = colour
        return picture

    def _state(self):
        return np.concatenate([self.hand, self.ball]).astype(np.float32)


def record_episode(path, seed: int) -> bool:
    """One of the reader's own episodes: heads for the ball, or for a place beside it."""
    env, rng = Reach(), np.random.default_rng(seed)
    state, _ = env.reset(seed=seed)
    aim = state[4:] + (rng.uniform(0.1, 0.2, 3) if seed % 3 == 0 else 0.0)
    states, actions, rewards, ended = [state], [], [], False
    while not ended:
        towards = np.append(aim - state[:3], 0.0) * 0.5 + rng.normal(0, 0.01, 4)
        actions.append(np.clip(towards, -STEP_M, STEP_M).astype(np.float32))
        state, reward, success, truncated, _ = env.step(actions[-1])
        states.append(state)
        rewards.append(reward)
        ended = success or truncated
    np.savez(
        path,
        **{"observation.state": np.stack(states)},
        action=np.stack(actions),
        reward=np.array(rewards, np.float32),
        success=np.array(success),
        terminated=np.array(success),
        truncated=np.array(truncated),
    )
    return success


gymnasium.register("Reach-v0", Reach)
