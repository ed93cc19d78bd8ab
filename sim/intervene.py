"""`ExpertIntervener`: the scripted expert takes over an episode that takes too long, as a person would.

For tests and for studies of interventions without a person. It sees what the robot sees, and decides from the number of ticks
alone: after `after` ticks it drives for `ticks` of them, then the policy goes on.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from sim.expert import Expert
from steer.errors import ConfigError
from steer.intervention import Takeover
from steer.options import integer, refuse_unknown
from steer.robot import Frame


class ExpertIntervener:
    """See the module. ticks: None drives to the end of the episode."""

    name = "expert"

    def __init__(self, after: int = 40, ticks: int | None = None, seed: int = 0) -> None:
        if after < 0 or (ticks is not None and ticks < 1):
            raise ConfigError(f"the expert cannot take over after {after} ticks for {ticks}: give at least 0, and 1")
        self._after, self._ticks = after, ticks
        self._rng = np.random.default_rng(seed)
        self._expert: Expert | None = None
        self._tick = 0

    def begin(self) -> None:
        self._expert, self._tick = None, 0

    def act(self, frame: Frame, last: Float[np.ndarray, " 7"] | None) -> Takeover | None:
        elapsed = self._tick - self._after
        self._tick += 1
        if elapsed < 0 or (self._ticks is not None and elapsed >= self._ticks):
            return None
        state = frame.arrays["state"]
        if self._expert is None:
            self._expert = Expert.midway(self._rng, state)
        return Takeover(self._expert.act(state))


def create(options: Mapping[str, str]) -> ExpertIntervener:
    """`expert` or `expert:?after=40&ticks=30&seed=1`."""
    refuse_unknown("intervener 'expert'", options, ("after", "ticks", "seed"))
    ticks = integer(options, "ticks", 0) if "ticks" in options else None
    return ExpertIntervener(integer(options, "after", 40), ticks, integer(options, "seed", 0))
