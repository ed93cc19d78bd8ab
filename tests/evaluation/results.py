"""Complete evaluation results made from given outcomes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from steer.evaluation.result import CalibrationGroup, EpisodeResult, Evaluation, Latency, Rate, SweepPoint
from steer.evaluation.statistics import discordance, mcnemar_exact, paired_difference, wilson


def evaluation(base: list[bool], steered: list[bool], **changes: Any) -> Evaluation:
    """A complete result with these outcomes."""
    n = len(base)
    difference, low, high = paired_difference(base, steered)
    gained, lost = discordance(base, steered)
    base_rate, steered_rate = wilson(sum(base), n), wilson(sum(steered), n)
    latency = {part: Latency(0.002, 0.004, 40) for part in ("propose", "score", "wait")}
    result = Evaluation(
        base=base_rate.value,
        steered=steered_rate.value,
        difference=difference,
        low=low,
        high=high,
        episodes=n,
        mcnemar_p=mcnemar_exact(base, steered),
        gained=gained,
        lost=lost,
        base_interval=base_rate[1:],
        steered_interval=steered_rate[1:],
        per_episode={
            "base": tuple(EpisodeResult(7 + i, ok, float(ok), 8) for i, ok in enumerate(base)),
            "steered": tuple(
                EpisodeResult(7 + i, ok, float(ok), 8, (0, 4), (0.2, 0.3 + 0.5 * ok)) for i, ok in enumerate(steered)
            ),
        },
        latency={"base": latency, "steered": latency},
        settings={"env_id": "Reach-v0", "num_samples": 8, "temperature": 0.8, "rate_hz": 20.0, "seed": 7},
        versions={"policy": "policy-1", "critic": "critic-1"},
        seconds=3.5,
        k_sweep=(SweepPoint(1, Rate(0.5, 0.4, 0.6, n)), SweepPoint(8, Rate(0.9, 0.8, 0.95, n))),
        calibration=(
            CalibrationGroup(0.3, Rate(0.4, 0.3, 0.5, 9), 0.35),
            CalibrationGroup(0.8, Rate(0.9, 0.8, 1.0, 9), 0.7),
        ),
    )
    return replace(result, **changes)
