"""`Critic`: scores action chunks. `CriticSpec` says which prefix of a chunk it may be asked about.

Scores are float32[M, B, K], one row per ensemble member, higher is better; `steer.selection` reduces them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from jaxtyping import Float

from steer.action import ActionSpec
from steer.errors import UnsupportedError
from steer.observation import Batch, ObservationSpec
from steer.policy import Context


@dataclass(frozen=True)
class CriticSpec:
    """What a critic says of itself.

    prefixes: chunk lengths E it was trained to score.
    scores: "executed": what will be executed is what is scored; "first_action": step 0 alone, as V-GPS published.
    members: M. reduction: how this critic is used by default. gamma: discount per control step.
    differentiable: can gradient refinement climb it.
    """

    observation: ObservationSpec
    action: ActionSpec
    prefixes: tuple[int, ...]
    members: int
    gamma: float
    reduction: Literal["min", "mean", "lower_bound"] = "mean"
    scores: Literal["executed", "first_action"] = "executed"
    differentiable: bool = False

    def scored_steps(self, executed: int) -> int:
        """How many steps of a chunk to hand to `score` when `executed` (with the committed ones) will run."""
        if self.scores == "first_action":
            return 1
        if executed not in self.prefixes:
            raise UnsupportedError(
                f"the critic was trained to score {list(self.prefixes)} steps, {executed} would be executed: "
                "execute one of these lengths (committed steps count), or train a critic for that prefix"
            )
        return executed


class Critic(Protocol):
    """Scores."""

    @property
    def spec(self) -> CriticSpec: ...

    @property
    def version(self) -> str:
        """Names the weights."""
        ...

    def encode(self, observations: Batch) -> Context:
        """Everything that does not depend on the candidate, once."""
        ...

    def score(self, context: Context, actions: Float[np.ndarray, "b k e a"]) -> Float[np.ndarray, "m b k"]:
        """Q of the first E steps of each candidate; E is one of `spec.prefixes`, or 1 where `scores` is first_action."""
        ...
