"""Warming: the first decision pays for compilation, allocation and caches, so the server asks it before a robot does.

A version that is to be swapped in is asked once, as a request among the others, and what it answers is looked at.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from steer.decision import Request
from steer.engine import Engine
from steer.errors import SpecError
from steer.server.batcher import Batcher

_SEED = 0


async def warm(batcher: Batcher, engine: Engine, num_samples: int) -> None:
    """Decide over 1 and `num_samples` candidates, twice each: the second time measures the cost."""
    if engine.policy is None:
        candidates = np.tile(engine.action.low, (num_samples, engine.horizon, 1))
        request = replace(_request(engine, num_samples), candidates=candidates)
        await batcher.submit(engine, request, rerank=True)
        return
    for count in sorted({1, num_samples if engine.policy.spec.stochastic else 1}):
        for repeat in range(2):
            await batcher.submit(engine, _request(engine, count))
            if repeat == 0:
                batcher.costs.forget(count)


async def probe(batcher: Batcher, engine: Engine, num_samples: int) -> None:
    """Decide once. Raises `SpecError`, or what the models raise, unless every candidate and score is a finite number."""
    assert engine.policy is not None
    count = num_samples if engine.policy.spec.stochastic else 1
    decision = await batcher.submit(engine, _request(engine, count))
    if decision.dropped:
        raise SpecError(f"{decision.dropped} of {count} candidates of a first decision are not finite")


def _request(engine: Engine, num_samples: int) -> Request:
    observation = engine.observation.generate(np.random.default_rng(_SEED))
    return Request(observation, num_samples=num_samples, execute=_executable(engine))


def _executable(engine: Engine) -> int:
    """A number of steps that the critic can score; 0, the whole chunk, without one."""
    if engine.critic is None:
        return 0
    spec = engine.critic.spec
    if spec.scores == "first_action":
        return 0
    fitting = [prefix for prefix in spec.prefixes if prefix <= engine.horizon]
    return max(fitting, default=0)
