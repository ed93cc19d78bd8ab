"""`Request` and `Decision`: what the engine is asked, and the full record of what it decided and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from steer.errors import SpecError
from steer.observation import Observation, Task
from steer.selection import Selection


@dataclass(frozen=True)
class Request:
    """One question to the engine.

    num_samples: K. temperature: the policy's noise scale.
    execute: E, steps the robot will run of the answer; 0 means the whole chunk after the committed steps.
    committed: float32[d, A], actions that will have run before the answer takes effect (d = 0 in a synchronous loop).
    candidates: float32[K, H, A] brought by the caller (`Rerank`); then no policy is asked.
    """

    observation: Observation
    task: Task = Task()
    seed: int = 0
    num_samples: int = 1
    temperature: float = 1.0
    execute: int = 0
    committed: Float[np.ndarray, "d a"] | None = None
    selection: Selection = Selection()
    candidates: Float[np.ndarray, "k h a"] | None = None

    def __post_init__(self) -> None:
        if not -(2**63) <= self.seed < 2**63:
            raise SpecError(f"seed {self.seed} does not fit 64 bits with a sign: give one from -2**63 to 2**63 - 1")

    @property
    def num_committed(self) -> int:
        """d."""
        return 0 if self.committed is None else int(self.committed.shape[0])


@dataclass(frozen=True)
class Decision:
    """What was proposed, scored and chosen, and by which rules. K counts what was left after cuts and refinement.

    candidates: float32[K, H, A], clipped to the action spec; origins: who made each ("policy", "caller", "gradient").
    scores: float32[M, K], empty (0, K) where no critic scored; values: float32[K] reduced scores.
    committed, executed: d and E; `actions` are the E steps to run.
    clipped: numbers that were moved into bounds; dropped: candidates that were not finite.
    cuts: what was not done, and why, in words. timings_s: seconds per part (propose, refine, score, select).
    """

    candidates: Float[np.ndarray, "k h a"]
    origins: tuple[str, ...]
    scores: Float[np.ndarray, "m k"]
    values: Float[np.ndarray, " k"]
    chosen: int
    committed: int
    executed: int
    seed: int
    temperature: float
    reduce: str
    choose: str
    policy_version: str
    critic_version: str
    clipped: int = 0
    dropped: int = 0
    cuts: tuple[str, ...] = ()
    timings_s: Mapping[str, float] = field(default_factory=dict)

    @property
    def chunk(self) -> Float[np.ndarray, "h a"]:
        """The chosen chunk, committed steps included."""
        chunk: Float[np.ndarray, "h a"] = self.candidates[self.chosen]
        return chunk

    @property
    def actions(self) -> Float[np.ndarray, "e a"]:
        """The steps to execute."""
        return self.chunk[self.committed : self.committed + self.executed]

    @property
    def spread(self) -> float:
        """max - min of the values: how much the critic saw to choose between."""
        return float(self.values.max() - self.values.min()) if self.scores.size else 0.0
