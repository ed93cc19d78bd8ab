"""`Refiner`: adds candidates to what a policy proposed, never replaces its own."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from jaxtyping import Float, Int

from steer.policy import Context


class Refiner(Protocol):
    """Gradient steps on Q, a learned edit, a Gaussian around few expensive samples."""

    def refine(
        self,
        policy_context: Context,
        critic_context: Context,
        candidates: Float[np.ndarray, "b k h a"],
        seeds: Int[np.ndarray, " b"],
        executed: int,
        committed: int,
    ) -> tuple[Float[np.ndarray, "b k2 h a"], tuple[str, ...]]:
        """Further candidates and, for each of them, the name of its origin.

        executed: steps of the chunk that are scored (the committed ones included); committed: leading steps that must stay.
        """
        ...
