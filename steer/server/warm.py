"""Warming: the first decision pays for compilation, allocation and caches, so the server asks it before a robot does."""

from __future__ import annotations

import numpy as np

from steer.decision import Request
from steer.engine import Engine
from steer.server.batcher import Batcher

_SEED = 0


async def warm(batcher: Batcher, num_samples: int) -> None:
    """Decide over 1 and `num_samples` candidates, twice each: the second time measures the cost."""
    engine = batcher.engine
    observation = engine.observation.generate(np.random.default_rng(_SEED))
    execute = _executable(engine)
    if engine.policy is None:
        candidates = np.tile(engine.action.low, (num_samples, engine.horizon, 1))
        await batcher.submit(
            Request(observation, candidates=candidates, num_samples=num_samples, execute=execute), rerank=True
        )
        return
    for count in sorted({1, num_samples if engine.policy.spec.stochastic else 1}):
        for repeat in range(2):
            await batcher.submit(Request(observation, num_samples=count, execute=execute))
            if repeat == 0:
                batcher.costs.forget(count)


def _executable(engine: Engine) -> int:
    """A number of steps that the critic can score; 0, the whole chunk, without one."""
    if engine.critic is None:
        return 0
    spec = engine.critic.spec
    if spec.scores == "first_action":
        return 0
    fitting = [prefix for prefix in spec.prefixes if prefix <= engine.horizon]
    return max(fitting, default=0)
