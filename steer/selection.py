"""Selection: two pure steps, reduce over the ensemble, then choose among the candidates.

    scores [M, K] --reduce--> values [K] --choose--> index

`margin` lets the critic abstain: candidate 0 (what the policy would do alone) stays unless another beats it clearly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from steer.errors import ConfigError


@dataclass(frozen=True)
class Selection:
    """How one candidate is chosen from the scores."""

    reduce: Literal["default", "min", "mean", "lower_bound"] = "default"
    """Over ensemble members; "default" is the critic's own. lower_bound: mean - bound * std."""
    bound: float = 1.0
    """Standard deviations subtracted by lower_bound."""
    choose: Literal["argmax", "softmax", "margin", "first", "random"] = "argmax"
    """first and random are controls for experiments."""
    selection_temperature: float = 1.0
    """softmax: candidates are drawn with logits value / selection_temperature (V-GPS's beta)."""
    margin: float = 0.0
    """margin: candidate 0 stays unless another's value is higher by more than this."""

    def __post_init__(self) -> None:
        # Written so that NaN is refused too: every comparison with it is False, and it would choose candidate 0 in silence.
        if not self.selection_temperature > 0:
            raise ConfigError(f"selection_temperature is {self.selection_temperature}, expected > 0: use argmax for 0")
        if not self.margin >= 0:
            raise ConfigError(f"margin is {self.margin}, expected 0 or more")
        if not math.isfinite(self.bound):
            raise ConfigError(f"bound is {self.bound}, expected a finite number of standard deviations")

    @property
    def asks_critic(self) -> bool:
        """Does the choice depend on scores?"""
        return self.choose not in ("first", "random")


def reduce_scores(scores: Float[np.ndarray, "m *k"], rule: str, bound: float = 1.0) -> Float[np.ndarray, " *k"]:
    """One value per candidate from one score per member and candidate."""
    values: Float[np.ndarray, " *k"]
    if rule == "min":
        values = scores.min(axis=0)
    elif rule == "mean":
        values = scores.mean(axis=0)
    elif rule == "lower_bound":
        values = scores.mean(axis=0) - bound * scores.std(axis=0)
    else:
        raise ConfigError(f"unknown reduction {rule!r}: use min, mean or lower_bound")
    return values


def choose(values: Float[np.ndarray, " k"], selection: Selection, seed: int) -> int:
    """Index of the chosen candidate; ties go to the first. `seed` drives softmax and random."""
    rule = selection.choose
    if rule == "argmax":
        return int(np.argmax(values))
    if rule == "margin":
        best = int(np.argmax(values))
        return best if values[best] > values[0] + selection.margin else 0
    if rule == "first":
        return 0
    # A stream of its own: the choice must not depend on how many numbers the policy drew.
    rng = np.random.Generator(np.random.Philox(key=[seed % 2**64, 0x5E1EC7]))
    if rule == "random":
        return int(rng.integers(len(values)))
    if rule == "softmax":
        # Gumbel's trick: no normalisation, hence no overflow.
        return int(np.argmax(values / selection.selection_temperature + rng.gumbel(size=len(values))))
    raise ConfigError(f"unknown choice {rule!r}: use argmax, softmax, margin, first or random")
