"""`Description`: what a checkpoint of somebody else's format says of itself, found without making a model of it.

A family's `describe` (see `steer.registry.Family`) makes one for `steer inspect`. What depends on an option that was not given is
left out, and `choices` says what may be given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from steer.action import UNKNOWN, ActionSpec
from steer.draft import TEXTS
from steer.observation import ObservationSpec


@dataclass(frozen=True)
class Sidecar:
    """What a person has to complete. content: the draft, a dataclass; place: where the finished file is read from."""

    content: Any
    place: str


@dataclass(frozen=True)
class Description:
    """facts: by name, JSON values. action: None where no option says whose.

    choices: options of the model's name that decide something and were not given -> what they may be.
    sidecar: the draft of what the files do not state; None where it cannot be drafted yet.
    """

    facts: Mapping[str, Any]
    observation: ObservationSpec | None = None
    action: ActionSpec | None = None
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    sidecar: Sidecar | None = None

    @property
    def unknown(self) -> tuple[str, ...]:
        """Fields of the action spec that nobody has stated, and that therefore match no robot."""
        if self.action is None:
            return ()
        texts = [name for name in TEXTS if getattr(self.action, name) == UNKNOWN]
        units = ["units"] if any(axis.unit == UNKNOWN for axis in self.action.axes) else []
        return (*texts, *units)
