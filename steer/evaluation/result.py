"""What an evaluation found, as data: written to `result.json`, read by the report and by scripts.

base, steered          success rates on the same initial states at the same noise scale
base_interval, steered_interval   their Wilson 95 % intervals, [low, high]
difference, low, high  steered - base with its paired 95 % interval (Tango)
episodes               pairs played; each side played this many episodes
gained, lost           pairs that only the steered, only the base side solved
mcnemar_p              exact two-sided p of "steering changes nothing"
per_episode            {"base": [...], "steered": [...]}, in the order of the seeds
latency                side -> part -> {p50_s, p99_s, count}; "wait" is the whole answer as the caller saw it
k_sweep                success against K on the same initial states
tuning                 how K and the noise scale were chosen, on which other seeds; null if they were given
calibration            Q in ten groups: mean Q, share of these decisions that led to success, mean return-to-go
settings, versions     what was run
verdict                the critic's own verdict whether it may steer, from its checkpoint; null if it has none
cuts                   what the engine could not do in time, and how often
seconds                wall time of the evaluation
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from steer.serial import from_json, to_json

FORMAT = 1


@dataclass(frozen=True)
class EpisodeResult:
    """One episode. steps: when decisions were taken; values: Q of what was chosen there (empty without a critic)."""

    seed: int
    success: bool
    total_return: float
    length: int
    steps: tuple[int, ...] = ()
    values: tuple[float, ...] = ()


@dataclass(frozen=True)
class Latency:
    """Seconds one part of a decision takes: median, 99th percentile, and the number of decisions."""

    p50_s: float
    p99_s: float
    count: int


@dataclass(frozen=True)
class Rate:
    """A success rate with its Wilson interval over `episodes`."""

    success: float
    low: float
    high: float
    episodes: int


@dataclass(frozen=True)
class SweepPoint:
    """Success with K = `samples` candidates."""

    samples: int
    rate: Rate


@dataclass(frozen=True)
class TuningPoint:
    """One setting that was tried, both sides at its temperature."""

    samples: int
    temperature: float
    base: float
    steered: float
    difference: float


@dataclass(frozen=True)
class Tuning:
    """How K and the temperature were chosen: the best `criterion` over `episodes` starts from `seed` on."""

    seed: int
    episodes: int
    criterion: str
    points: tuple[TuningPoint, ...]
    samples: int
    temperature: float


@dataclass(frozen=True)
class CalibrationGroup:
    """Decisions of similar Q: what the critic said against what came of it. Return-to-go needs a known gamma."""

    q: float
    success: Rate
    return_to_go: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """The result; see the module's table."""

    base: float
    steered: float
    difference: float
    low: float
    high: float
    episodes: int
    mcnemar_p: float
    gained: int
    lost: int
    base_interval: tuple[float, float]
    steered_interval: tuple[float, float]
    per_episode: Mapping[str, tuple[EpisodeResult, ...]]
    latency: Mapping[str, Mapping[str, Latency]]
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    seconds: float
    k_sweep: tuple[SweepPoint, ...] = ()
    calibration: tuple[CalibrationGroup, ...] = ()
    tuning: Tuning | None = None
    verdict: Mapping[str, Any] | None = None
    cuts: Mapping[str, int] = field(default_factory=dict)
    format: int = FORMAT

    def write(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(json.dumps(to_json(self), indent=2, allow_nan=False) + "\n")

    @classmethod
    def read(cls, path: Path) -> Evaluation:
        """Read what `write` wrote; raises `SpecError` naming a field that is missing or unknown."""
        return from_json(cls, json.loads(path.read_text()), str(path))
