"""Demonstrations: whole episodes of the scripted expert, ready for the episode store.

A demonstration is a function of the environment's settings and its seed alone, wherever and in whatever order it is made.
"""

from __future__ import annotations

from typing import Any, Final

import gymnasium
import numpy as np

from sim.expert import Expert
from sim.expert_modes import Mode
from steer.data.episode import Episode
from steer.observation import Task
from steer.spec import Array

# Keeps the expert's random numbers apart from the environment's, which are drawn from the same seed.
EXPERT_STREAM: Final = 1

SOURCE: Final = "expert"
"""`Episode.source` of a demonstration."""


def demonstrate(env: gymnasium.Env[dict[str, Any], Any], seed: int, mode: Mode | None = None) -> Episode:
    """Let the expert act for one episode of `env`, a `steer/PickPlace-v0` in any wrapper; success as the simulator sees it.

    mode: the failure to show, drawn from the expert's mixture when None. The episode's `info` holds seed, mode, strategy,
    retry (would the expert notice a failure) and retried (did it).
    """
    expert = Expert(np.random.default_rng([seed, EXPERT_STREAM]), mode)
    strategy = expert.strategy.name
    observation, info = env.reset(seed=seed)
    frames = [observation]
    actions: list[Array] = []
    rewards: list[float] = []
    terminated = truncated = False
    while not (terminated or truncated):
        actions.append(expert.act(observation["state"]))
        observation, reward, terminated, truncated, info = env.step(actions[-1])
        frames.append(observation)
        rewards.append(float(reward))
    return Episode(
        observations={key: np.stack([frame[key] for frame in frames]) for key in frames[0]},
        actions=np.stack(actions),
        rewards=np.array(rewards, np.float32),
        terminated=terminated,
        truncated=truncated,
        success=bool(info["success"]),
        success_source="simulator",
        task=Task(str(info["task"])),
        source=SOURCE,
        info={
            "seed": seed,
            "mode": expert.mode.value,
            "strategy": strategy,
            "retry": expert.retry,
            "retried": expert.retried,
        },
    )
