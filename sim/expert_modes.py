"""The mixture that the scripted expert draws from: its failure modes, its strategies, and what a mode does to a strategy.

All lengths in m, heights above the table, speeds as a share of the largest step of a tick.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum
from typing import Final

import numpy as np


class Mode(StrEnum):
    """How an attempt goes wrong, if it does."""

    CLEAN = "clean"
    """Not at all."""
    MISS = "miss"
    """Grasps beside the cube and goes on empty-handed."""
    HIGH = "high"
    """Closes above the cube and goes on empty-handed."""
    EARLY = "early"
    """Opens on the way to the goal."""
    DROP = "drop"
    """Lets go from high above a badly chosen place."""
    STALL = "stall"
    """Stops moving, for good or for a while."""


class Phase(IntEnum):
    """The script, in order."""

    APPROACH = 0
    DESCEND = 1
    CLOSE = 2
    LIFT = 3
    TRANSPORT = 4
    LOWER = 5
    OPEN = 6
    RISE = 7


MODE_PROBABILITIES: Final = {
    Mode.CLEAN: 0.20,
    Mode.MISS: 0.24,
    Mode.HIGH: 0.14,
    Mode.EARLY: 0.24,
    Mode.DROP: 0.08,
    Mode.STALL: 0.10,
}
ALIGN_PROBABILITY: Final = 0.70
DIAGONAL_PROBABILITY: Final = 0.30
DIAGONAL_HOVER_M: Final = 0.065
STALL_PHASES: Final = (Phase.APPROACH, Phase.DESCEND, Phase.TRANSPORT, Phase.LOWER)


@dataclass(frozen=True)
class Strategy:
    """How an attempt is carried out.

    diagonal: approach in a straight line to just above the cube, instead of hovering higher up first.
    align: turn the fingers to the faces of the cube, instead of leaving the wrist straight.
    grasp_offset_m, place_offset_m: errors in the plane.
    """

    diagonal: bool
    align: bool
    speed: float
    hover_m: float
    grasp_m: float
    lift_m: float
    release_m: float
    grasp_offset_m: tuple[float, float]
    place_offset_m: tuple[float, float]

    @property
    def name(self) -> str:
        """The discrete choices: "hover-align", "diagonal-straight", ..."""
        return f"{'diagonal' if self.diagonal else 'hover'}-{'align' if self.align else 'straight'}"


@dataclass(frozen=True)
class Fault:
    """What goes wrong in one attempt; the defaults mean nothing does.

    beside_m: shifts the grasp along the finger axis.
    open_after: share of the way to the goal after which the gripper opens.
    stall_phase, stall_from, stall_until: stop in that phase, from one of its ticks to another.
    """

    beside_m: float = 0.0
    open_after: float = math.inf
    stall_phase: Phase | None = None
    stall_from: int = 0
    stall_until: float = math.inf

    def stalls(self, phase: Phase, tick: int) -> bool:
        return phase == self.stall_phase and self.stall_from <= tick < self.stall_until


def draw_mode(rng: np.random.Generator) -> Mode:
    modes = tuple(MODE_PROBABILITIES)
    return modes[int(rng.choice(len(modes), p=list(MODE_PROBABILITIES.values())))]


def draw_strategy(rng: np.random.Generator) -> Strategy:
    """One way that works."""
    diagonal = bool(rng.random() < DIAGONAL_PROBABILITY)
    return Strategy(
        diagonal=diagonal,
        align=bool(rng.random() < ALIGN_PROBABILITY),
        speed=float(rng.uniform(0.6, 1.0)),
        hover_m=DIAGONAL_HOVER_M if diagonal else float(rng.uniform(0.10, 0.16)),
        grasp_m=float(rng.uniform(0.014, 0.022)),
        lift_m=float(rng.uniform(0.09, 0.18)),
        release_m=float(rng.uniform(0.024, 0.034)),
        grasp_offset_m=_error(rng, 0.003),
        place_offset_m=_error(rng, 0.010),
    )


def spoil(strategy: Strategy, mode: Mode, retry: bool, rng: np.random.Generator) -> tuple[Strategy, Fault]:
    """The same strategy with the failure of `mode`; an expert that retries stalls for a while only."""
    if mode is Mode.MISS:
        return strategy, Fault(beside_m=float(rng.uniform(0.032, 0.050) * rng.choice((-1.0, 1.0))))
    if mode is Mode.HIGH:
        return replace(strategy, grasp_m=float(rng.uniform(0.050, 0.065))), Fault()
    if mode is Mode.EARLY:
        return strategy, Fault(open_after=float(rng.uniform(0.1, 0.6)))
    if mode is Mode.DROP:
        return replace(strategy, release_m=float(rng.uniform(0.12, 0.18)), place_offset_m=_error(rng, 0.07)), Fault()
    if mode is Mode.STALL:
        phase = STALL_PHASES[int(rng.integers(len(STALL_PHASES)))]
        start = int(rng.integers(0, 9))
        return strategy, Fault(
            stall_phase=phase, stall_from=start, stall_until=start + int(rng.integers(12, 28)) if retry else math.inf
        )
    return strategy, Fault()


def _error(rng: np.random.Generator, deviation_m: float) -> tuple[float, float]:
    x, y = rng.normal(0.0, deviation_m, 2)
    return float(x), float(y)
