"""`Policy`: proposes K action chunks for each observation. `PolicySpec` says what it wants and what it cannot do.

Contract of `sample`, kept by every family and checked by the contract suite (`tests/contracts`):
- candidates are float32[B, K, H, A] in the robot's own units;
- candidate 0 is what the policy would do alone;
- noise is keyed by (seed, k): the first 8 of K = 32 are the candidates of K = 8 (`seeding` "request");
- a context belongs to the batch it was encoded from; it is never split or mixed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from jaxtyping import Float, Int

from steer.action import ActionSpec
from steer.errors import UnsupportedError
from steer.observation import Batch, ObservationSpec

# What a model computed once for a batch. Its form is the model's own business; nobody else looks inside.
Context: TypeAlias = Any


@dataclass(frozen=True)
class PolicySpec:
    """What a policy says of itself.

    horizon: H, steps of a proposed chunk.
    seeding: "request": a function of the request's seed; "call": reproducible only for the whole call; "none": not at all.
    temperature: may `sample` be given one other than 1.
    trainable: can this stack fine-tune it.
    inpaints: can it keep the first d committed steps of a chunk while it samples the rest.
    """

    observation: ObservationSpec
    action: ActionSpec
    horizon: int
    stochastic: bool = True
    seeding: Literal["request", "call", "none"] = "request"
    temperature: bool = True
    trainable: bool = True
    inpaints: bool = False

    def check_request(self, num_samples: int, temperature: float, committed: int) -> None:
        """Raise `UnsupportedError` for what this policy cannot do."""
        if num_samples < 1:
            raise UnsupportedError(f"{num_samples} candidates were asked for: ask for at least 1")
        if num_samples > 1 and not self.stochastic:
            raise UnsupportedError(
                f"{num_samples} candidates were asked of a deterministic policy: ask for 1, and add a refiner such as "
                "'gaussian' to have something to choose among"
            )
        if not (math.isfinite(temperature) and temperature >= 0):
            raise UnsupportedError(f"temperature {temperature} is negative or not finite: give 0 or more")
        if temperature != 1.0 and not self.temperature:
            raise UnsupportedError(f"temperature {temperature} was asked of a policy that has none: leave it at 1")
        if not 0 <= committed < self.horizon:
            raise UnsupportedError(
                f"{committed} committed steps leave nothing of a chunk of {self.horizon}: commit fewer"
            )


class Policy(Protocol):
    """Proposes. See the module's contract."""

    @property
    def spec(self) -> PolicySpec: ...

    @property
    def version(self) -> str:
        """Names the weights: the checkpoint's hash, or a remote side's own word."""
        ...

    def encode(self, observations: Batch) -> Context:
        """Everything that does not depend on the candidate, once."""
        ...

    def sample(
        self,
        context: Context,
        num_samples: int,
        seeds: Int[np.ndarray, " b"],
        temperature: float = 1.0,
        committed: Float[np.ndarray, "b d a"] | None = None,
    ) -> Float[np.ndarray, "b k h a"]:
        """K chunks per observation. temperature scales the initial noise (diffusion) or the logits (tokens).

        committed: actions that will have run before the chunk takes effect; families whose spec says `inpaints` sample
        the rest of the chunk given them, others ignore them (the engine then writes them over the first d steps).
        """
        ...
