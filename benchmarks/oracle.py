"""How much of what is possible a critic captures: its choice against an oracle's, in value under the base policy.

At states along steered episodes the simulator is restored, every candidate is executed, and the base policy plays on to the end,
several times. The value of a candidate is the share of its rollouts that succeed. To be fair to both, the oracle chooses on one
half of the rollouts and is valued on the other half, and vice versa; the critic's choice is valued on the same halves. The
share is (critic - mean of the candidates) / (oracle - mean of the candidates), over all states, with a bootstrap interval.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from rich.console import Console

from benchmarks.cells import ENVIRONMENT
from steer import registry
from steer.decision import Decision, Request
from steer.engine import Engine
from steer.environment import Environment
from steer.evaluation.rollout import decision_seed
from steer.history import History
from steer.parallel import WorkerPool
from steer.progress import ProgressBar
from steer.robot import Frame


@dataclass(frozen=True)
class OracleSettings:
    """How much is rolled out."""

    episodes: int = 16
    """Steered episodes along which states are taken."""
    states: int = 4
    """States per episode, spread over its decisions (short episodes give fewer)."""
    samples: int = 8
    """K, candidates per state."""
    rollouts: int = 10
    """Continuations per candidate; half choose, half value."""
    seed: int = 300_000
    """Seed of the first episode: none that anything was trained or tuned on."""


def oracle_share(
    policy: str, critic: str, temperature: float, settings: OracleSettings, console: Console
) -> dict[str, Any]:
    """The figures, see the module."""
    make = partial(_worker, policy, critic, temperature, settings)
    seeds = range(settings.seed, settings.seed + settings.episodes)
    with WorkerPool(make) as pool, ProgressBar(console) as bar:
        task = bar.add_task("oracle", total=len(seeds))
        found = []
        for states_of_episode in pool.map(seeds):
            found.append(states_of_episode)
            bar.advance(task)
    states = [state for episode in found for state in episode]
    return summarise([value for value, _ in states], np.array([chosen for _, chosen in states]))


def summarise(outcomes: list[Bool[np.ndarray, "k r"]], chosen: np.ndarray, draws: int = 2000) -> dict[str, Any]:
    """Gains of the critic's and the oracle's choice over the mean candidate, and their ratio with a bootstrap interval."""
    gains = np.array([_gains(outcome, int(index)) for outcome, index in zip(outcomes, chosen, strict=True)])
    rng = np.random.default_rng(0)
    resampled = gains[rng.integers(len(gains), size=(draws, len(gains)))].mean(axis=1)
    shares = resampled[:, 0] / np.where(resampled[:, 1] > 0, resampled[:, 1], np.nan)
    low, high = np.nanpercentile(shares, [2.5, 97.5])
    critic, oracle = gains.mean(axis=0)
    return {
        "share": round(float(critic / oracle), 4) if oracle > 0 else None,
        "low": round(float(low), 4),
        "high": round(float(high), 4),
        "states": len(gains),
        "rollouts": int(sum(outcome.size for outcome in outcomes)),
        "mean_value": round(float(np.mean([outcome.mean() for outcome in outcomes])), 4),
        "critic_gain": round(float(critic), 4),
        "oracle_gain": round(float(oracle), 4),
    }


def _gains(outcome: Bool[np.ndarray, "k r"], chosen: int) -> tuple[float, float]:
    """Over the mean candidate: the critic's choice and the oracle's, both valued on rollouts that did not choose."""
    half = outcome.shape[1] // 2
    critic, oracle = [], []
    for chooses, values in ((outcome[:, :half], outcome[:, half:]), (outcome[:, half:], outcome[:, :half])):
        value: Float[np.ndarray, " k"] = values.mean(axis=1)
        seen = chooses.mean(axis=1)
        # Ties are many with few rollouts: their mean is the value of choosing among them at random.
        oracle.append(float(value[seen == seen.max()].mean() - value.mean()))
        critic.append(float(value[chosen] - value.mean()))
    return float(np.mean(critic)), float(np.mean(oracle))


class _Player:
    """One worker: plays a steered episode, and at some of its decisions rolls every candidate out."""

    def __init__(self, policy: str, critic: str, temperature: float, settings: OracleSettings) -> None:
        self._engine = Engine(registry.policy(policy), registry.critic(critic))
        self._environment = Environment(ENVIRONMENT)
        self._temperature = temperature
        self._settings = settings

    def __call__(self, seed: int) -> list[tuple[Bool[np.ndarray, "k r"], int]]:
        decisions = self._count_decisions(seed)
        wanted = set(np.linspace(0, decisions - 1, self._settings.states).round().astype(int).tolist())
        found = []
        frame, index, ended = self._environment.reset(seed), 0, False
        while not ended:
            decision = self._decide(frame, seed, index, self._settings.samples)
            if index in wanted:
                found.append((self._roll_out(decision, seed, index), decision.chosen))
            frame, ended, _ = self._execute(decision)
            index += 1
        return found

    def _count_decisions(self, seed: int) -> int:
        """The episode is deterministic: play it once to know how long it is."""
        frame, index, ended = self._environment.reset(seed), 0, False
        while not ended:
            frame, ended, _ = self._execute(self._decide(frame, seed, index, self._settings.samples))
            index += 1
        return index

    def _decide(self, frame: Frame, seed: int, index: int, samples: int) -> Decision:
        history = History(self._engine.observation)
        history.push(frame)
        request = Request(
            history.observation(),
            seed=decision_seed(seed, index),
            num_samples=samples,
            temperature=self._temperature,
        )
        return self._engine.decide([request])[0]

    def _execute(self, decision: Decision) -> tuple[Frame, bool, bool]:
        for action in decision.actions:
            outcome = self._environment.step(action)
            if outcome.terminated or outcome.truncated:
                return outcome.frame, True, outcome.success
        return outcome.frame, False, outcome.success

    def _roll_out(self, decision: Decision, seed: int, index: int) -> Bool[np.ndarray, "k r"]:
        """Success of each continuation. Rollout r draws the same noise for every candidate: less variance between them."""
        state = self._environment.save()
        outcome = np.zeros((len(decision.candidates), self._settings.rollouts), np.bool_)
        for k, chunk in enumerate(decision.candidates):
            for r in range(self._settings.rollouts):
                self._environment.restore(state)
                outcome[k, r] = self._continue(chunk, decision_seed(seed, 10_000 * (index + 1) + 100 * r))
        self._environment.restore(state)
        self._environment.release(state)
        return outcome

    def _continue(self, chunk: Float[np.ndarray, "h a"], seed: int) -> bool:
        """Execute the candidate, then the base policy alone to the end."""
        for action in chunk:
            outcome = self._environment.step(action)
            if outcome.terminated or outcome.truncated:
                return outcome.success
        frame, index, ended, success = outcome.frame, 0, False, False
        while not ended:
            frame, ended, success = self._execute(self._decide(frame, seed, index, 1))
            index += 1
        return success


def _worker(policy: str, critic: str, temperature: float, settings: OracleSettings) -> Callable[[int], Any]:
    return _Player(policy, critic, temperature, settings)
