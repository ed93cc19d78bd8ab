"""What every robot here does with a command before it moves: check its form, bring it within bounds, refuse the rest."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from steer.action import ActionSpec
from steer.errors import SpecError


def within_bounds(spec: ActionSpec, action: Float[np.ndarray, " a"]) -> Float[np.ndarray, " a"]:
    """The action clipped to `spec`; `SpecError` for a wrong dtype or shape, and for NaN, which no bound can mend."""
    spec.check_shape(action, "action")
    if action.ndim != 1:
        raise SpecError(f"action: got shape {action.shape}, expected ({spec.size},): send one step at a time")
    clipped, _ = spec.clip(action)
    spec.validate(clipped, "action")
    return clipped
