"""Timing side by side: variants take turns in every round, so that a drift of the machine's speed hits all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

WARMUP_ROUNDS = 3


def take_turns(
    variants: Mapping[str, Callable[[], Any]],
    rounds: int,
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds per call of each variant in each round; the first rounds warm up and are not counted.

    clock: `time.process_time` for work of one thread that never waits, so that other processes on the machine do not count.
    """
    times: dict[str, list[float]] = {name: [] for name in variants}
    for index in range(rounds + WARMUP_ROUNDS):
        for name, call in variants.items():
            start = clock()
            for _ in range(repeats):
                call()
            if index >= WARMUP_ROUNDS:
                times[name].append((clock() - start) / repeats)
    return times


def ratio(over: list[float], under: list[float]) -> float:
    """Median of the rounds' own ratios."""
    return round(statistics.median(a / b for a, b in zip(over, under, strict=True)), 3)
