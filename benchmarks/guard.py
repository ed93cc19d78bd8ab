"""How often the guard gives a sound version up, and how soon a bad one: `python -m benchmarks.guard`.

Episodes are drawn, not played. For every success rate: of how many runs in which nothing changed is the version rolled back at
any time of its life; and for drops of the rate, after how many episodes. The reference is drawn anew in every run, so that its
own error counts. Prints one JSON object and keeps it in benchmarks/results/guard.json.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from jaxtyping import Bool, Int

from benchmarks.keep import keep
from steer.server.guard import Guard, evidence

RESULT = Path(__file__).parent / "results" / "guard.json"
RATES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98)
DROPS = ((0.8, 0.2), (0.8, 0.4), (0.8, 0.6), (0.95, 0.7), (0.95, 0.85), (0.5, 0.1))
QUANTILES = (0.1, 0.5, 0.9, 0.95)


@dataclass(frozen=True)
class Arguments:
    """What to draw."""

    runs: int = 4000
    """Lives per cell."""
    life: int = 300
    """Episodes of a version."""
    references: tuple[int, ...] = (10, 25, 50, 100)
    """Episodes of earlier versions."""
    seed: int = 0


def first_alarms(
    guard: Guard, reference: Int[np.ndarray, " runs"], episodes: int, success: Bool[np.ndarray, "runs life"]
) -> Int[np.ndarray, " runs"]:
    """The episode, from 1, after which each run is rolled back; life + 1 where it never is.

    reference: successes among the `episodes` before.
    """
    life = success.shape[1]
    successes, failures = np.cumsum(success, axis=1), np.cumsum(~success, axis=1)
    alarm = np.zeros(success.shape, np.bool_)
    for known in np.unique(reference):
        mine = reference == known
        alarm[mine] = successes[mine] <= limits(guard, int(known), episodes, life)[failures[mine]]
    first: Int[np.ndarray, " runs"] = np.where(alarm.any(axis=1), alarm.argmax(axis=1) + 1, life + 1)
    return first


@cache
def limits(guard: Guard, reference: int, episodes: int, life: int) -> Int[np.ndarray, " failures"]:
    """With how many successes, at most, so many failures (0 to `life`) are enough to roll back; -1: with none.

    The evidence falls with every success, so that bisection finds it.
    """
    failures = np.arange(life + 1)
    enough, too_many = np.full(life + 1, -1), np.full(life + 1, life + 1)
    while (too_many - enough > 1).any():
        middle = (enough + too_many) // 2
        holds = evidence(middle, failures, reference, episodes) >= guard.evidence
        enough, too_many = np.where(holds, middle, enough), np.where(holds, too_many, middle)
    return np.where(failures >= guard.failures, enough, -1)


def draw(
    guard: Guard, rng: np.random.Generator, before: float, after: float, episodes: int, runs: int, life: int
) -> Int[np.ndarray, " runs"]:
    """First alarms of versions of rate `after` that follow `episodes` of rate `before`."""
    return first_alarms(guard, rng.binomial(episodes, before, runs), episodes, rng.random((runs, life)) < after)


def measure(guard: Guard, arguments: Arguments) -> dict[str, Any]:
    """Everything that the module says."""
    rng = np.random.default_rng(arguments.seed)
    runs, life = arguments.runs, arguments.life
    false_alarms: dict[str, dict[str, float]] = {}
    delays: dict[str, dict[str, Any]] = {}
    for episodes in arguments.references:
        for rate in RATES:
            alarms = draw(guard, rng, rate, rate, episodes, runs, life)
            false_alarms.setdefault(str(rate), {})[str(episodes)] = float(np.mean(alarms <= life))
        for before, after in DROPS:
            alarms = draw(guard, rng, before, after, episodes, runs, life)
            delays.setdefault(f"{before} to {after}", {})[str(episodes)] = {
                "within_10": float(np.mean(alarms <= 10)),
                **{f"q{100 * q:g}": int(np.quantile(alarms, q, method="higher")) for q in QUANTILES},
            }
    return {
        "guard": asdict(guard),
        "runs": runs,
        "life": life,
        "largest_false_alarm_rate": max(max(cells.values()) for cells in false_alarms.values()),
        "false_alarms": false_alarms,
        "delays": delays,
    }


def main(arguments: Arguments) -> None:
    result = measure(Guard(), arguments)
    keep(RESULT, result)
    print(json.dumps(result))


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
