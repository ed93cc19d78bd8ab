"""What a decision costs: K = 32 against K = 1, encoding once against once per candidate, the engine against the plain models.

    python -m benchmarks.engine --policy runs/demo/policy --critic runs/demo/critic [--json]

One thread, one request at a time; see `benchmarks.rounds` for how it is timed.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from benchmarks.keep import keep
from benchmarks.rounds import ratio, take_turns
from steer import registry
from steer.critic import Critic
from steer.decision import Request
from steer.engine import Engine
from steer.observation import Batch
from steer.policy import Policy


@dataclass(frozen=True)
class Arguments:
    """Measure the engine on trained models."""

    policy: str
    """Policy checkpoint."""
    critic: str
    """Critic checkpoint."""
    rounds: int = 60
    """Rounds in which every variant runs once for `repeats` calls."""
    repeats: int = 5
    """Calls per round and variant."""
    json: bool = False
    """Print only the JSON object."""
    out: Path | None = Path("benchmarks/results/engine.json")
    """Where the result is kept."""

    def run(self) -> None:
        torch.set_num_threads(1)
        policy, critic = registry.policy(self.policy), registry.critic(self.critic)
        result = measure(policy, critic, self.rounds, self.repeats)
        if self.out is not None:
            keep(self.out, result)
        if not self.json:
            for name, value in result.items():
                print(f"{name:<28} {value}")
        print(json.dumps(result))


def measure(policy: Policy, critic: Critic, rounds: int, repeats: int) -> dict[str, Any]:
    """All figures, see the module."""
    observation = policy.spec.observation.generate(np.random.default_rng(0))
    steered, alone = Engine(policy, critic), Engine(policy)
    batch = Batch.stack([observation], keys=policy.spec.observation.keys)
    seeds = np.array([1])

    def ask(engine: Engine, samples: int) -> Callable[[], Any]:
        request = Request(observation, seed=1, num_samples=samples)
        return lambda: engine.decide([request])

    def plain() -> Any:
        return policy.sample(policy.encode(batch), 1, seeds)

    variants: dict[str, Callable[[], Any]] = {
        "plain": plain,
        "k1": ask(alone, 1),
        "k8": ask(steered, 8),
        "k32": ask(steered, 32),
        "k32_separate": lambda: [ask(alone, 1)() for _ in range(32)],
        "k32_encode_each": lambda: _encode_each(policy, critic, batch, 32),
        "k32_encode_once": lambda: _encode_once(policy, critic, batch, 32),
    }
    times = take_turns(variants, rounds, repeats)
    parts = {name: _parts(steered, observation, samples) for name, samples in (("k8", 8), ("k32", 32))}
    return {
        "k1_over_plain": ratio(times["k1"], times["plain"]),
        "k8_over_k1": ratio(times["k8"], times["k1"]),
        "k32_over_k1": ratio(times["k32"], times["k1"]),
        "k32_separate_over_k1": ratio(times["k32_separate"], times["k1"]),
        "encode_each_over_once": ratio(times["k32_encode_each"], times["k32_encode_once"]),
        "part_shares": parts,
        "plain_ms": round(1e3 * statistics.median(times["plain"]), 3),
    }


def _encode_once(policy: Policy, critic: Critic, batch: Batch, samples: int) -> None:
    chunks = policy.sample(policy.encode(batch), samples, np.array([1]))
    critic.score(critic.encode(batch), chunks[:, :, : max(critic.spec.prefixes)])


def _encode_each(policy: Policy, critic: Critic, batch: Batch, samples: int) -> None:
    """The same work with the observation repeated K times, as the published V-GPS code does."""
    repeated = replace(
        batch,
        arrays={key: np.repeat(value, samples, axis=0) for key, value in batch.arrays.items()},
        mask=np.repeat(batch.mask, samples, axis=0),
        tasks=batch.tasks * samples,
    )
    chunks = policy.sample(policy.encode(repeated), 1, np.arange(samples))
    critic.score(critic.encode(repeated), chunks[:, :, : max(critic.spec.prefixes)])


def _parts(engine: Engine, observation: Any, samples: int) -> dict[str, float]:
    """Share of each part of a decision, medians over 100 calls."""
    request = Request(observation, seed=1, num_samples=samples)
    timings = [engine.decide([request])[0].timings_s for _ in range(100)]
    medians = {part: statistics.median(t[part] for t in timings) for part in timings[0]}
    total = sum(medians.values())
    return {part: round(value / total, 3) for part, value in medians.items()}


if __name__ == "__main__":
    tyro.cli(Arguments).run()
