"""The fixed bounds that map actions to a V-GPS critic's [-1, 1], and the action spec that follows from them.

The published evaluation maps with these bounds whatever the generating policy's statistics were. What the numbers mean beyond
that (frame, reference, rotation form, gripper sign) nobody states: the spec says "unknown", which matches no policy until a
robot sidecar says it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from steer.action import UNKNOWN, ActionAxis, ActionSpec
from steer.errors import ConfigError
from steer.robot import RobotSpec
from steer.serial import from_json

AXES = ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper")
MARGIN = 1e-5
"""Mapped actions stay this far inside of [-1, 1], as published."""


@dataclass(frozen=True)
class Bounds:
    """low, high: one number per axis. rate_hz: control rate of the data they belong to."""

    low: tuple[float, ...]
    high: tuple[float, ...]
    rate_hz: float

    def __post_init__(self) -> None:
        if len(self.low) != len(self.high) or not all(a < b for a, b in zip(self.low, self.high, strict=True)):
            raise ConfigError(f"bounds {self.low} to {self.high}: expected as many, and each low below its high")

    def to_critic(self, actions: Float[np.ndarray, "*lead a"]) -> Float[np.ndarray, "*lead a"]:
        """clip(2 (a - low) / (high - low) - 1), every axis, the gripper too; float64, as published."""
        low, high = np.array(self.low), np.array(self.high)
        scaled = 2 * (actions - low) / (high - low) - 1
        mapped: Float[np.ndarray, "*lead a"] = np.clip(scaled, -1 + MARGIN, 1 - MARGIN)
        return mapped

    def action_spec(self) -> ActionSpec:
        """What follows from the bounds alone."""
        names = AXES if len(self.low) == len(AXES) else tuple(f"a{i}" for i in range(len(self.low)))
        triples = zip(names, self.low, self.high, strict=True)
        axes = tuple(ActionAxis(name, UNKNOWN, low, high) for name, low, high in triples)
        return ActionSpec(axes, "unknown", UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, self.rate_hz)


PUBLISHED = {
    "bridge": Bounds((-0.05, -0.05, -0.05, -0.25, -0.25, -0.25, 0.0), (0.05, 0.05, 0.05, 0.25, 0.25, 0.25, 1.0), 5.0),
    "fractal": Bounds(
        (-2.02045202, -5.49789953, -2.03166342, -1.56991792, -1.56989217, -1.57041943, 0.0),
        (2.99845934, 22.09052849, 2.75075245, 1.57063651, 1.53210866, 1.56915224, 1.0),
        3.0,
    ),
}


def read_bounds(text: str) -> Bounds:
    """`bridge`, `fractal`, or a JSON file with "low", "high" (a number per axis) and "rate_hz"."""
    if text in PUBLISHED:
        return PUBLISHED[text]
    return from_json(
        Bounds, _json(Path(text), f"bounds {text!r} are none of {sorted(PUBLISHED)}, and as a file it"), text
    )


def read_action(path: Path) -> ActionSpec:
    """The action spec of a robot sidecar (a robot spec as JSON)."""
    return from_json(RobotSpec, _json(path, f"robot sidecar {path}"), str(path)).action


def _json(path: Path, what: str) -> Any:
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{what} cannot be read ({error.strerror}): check the path") from error
    except ValueError as error:
        raise ConfigError(f"{what} is not JSON ({error})") from error
