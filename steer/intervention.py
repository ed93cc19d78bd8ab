"""Interventions: somebody else drives the robot for a while, a person or a script, and gives it back.

An intervener is asked once per tick, before the policy's plan. While it acts, the plan is dropped and nothing is asked of the
server; its actions pass the same safety filter, and its steps are flagged. When it lets go, the next decision starts from the
frames of that moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float

from steer.robot import Frame


@dataclass(frozen=True)
class Takeover:
    """What the one who took over wants at this tick; action None: stand still."""

    action: Float[np.ndarray, " a"] | None


class Intervener(Protocol):
    """Takes over when it wants to. Must not block."""

    @property
    def name(self) -> str: ...

    def begin(self) -> None:
        """An episode begins; the policy drives."""
        ...

    def act(self, frame: Frame, last: Float[np.ndarray, " a"] | None) -> Takeover | None:
        """None: the policy drives. last: the last command sent in this episode, None before the first."""
        ...
