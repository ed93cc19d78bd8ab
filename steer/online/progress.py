"""Where a run is (`Progress`, saved with its state) and what is told of its rounds (`Round`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from steer.errors import CheckpointError

Phase = Literal["gather", "critic", "policy"]


@dataclass
class Progress:
    """Where a run is, as JSON. rounds: the ids of the online episodes in the order they were learnt from, round by round."""

    phase: Phase = "gather"
    rounds: list[list[str]] = field(default_factory=list)
    control_steps: int = 0
    decisions: int = 0
    warm_decisions: int = 0
    """Of these, the ones of a warm-up that earn no updates."""
    critic_updates: int = 0
    policy_updates: int = 0
    seconds: float = 0.0
    """Wall time of all sittings."""
    saves: int = 0
    critics: list[str] = field(default_factory=list)
    """Of every version that was published, the critic's: robots record by whom they were steered."""

    @classmethod
    def read(cls, saved: Mapping[str, Any], where: Path) -> Progress:
        """Raises `CheckpointError` for what a version of Steer saved that counted other things, naming the place `where`."""
        if other := sorted(saved.keys() ^ {each.name for each in fields(cls)}):
            raise CheckpointError(
                f"{where}: the state was saved by another version of Steer, which counted {other} differently: resume with that "
                "one, or start anew"
            )
        return cls(**saved)

    @property
    def episodes(self) -> int:
        return sum(map(len, self.rounds))

    @property
    def published(self) -> int:
        """The version that is out: one per finished round, after the start's."""
        return len(self.rounds) - (self.phase != "gather")

    @property
    def counted_decisions(self) -> int:
        """Those that updates are due for."""
        return self.decisions - self.warm_decisions

    def version_of(self, info: Mapping[str, Any]) -> int | None:
        """The version that played an episode, by its info; None where it does not say, or names another run's critic."""
        version, critic = info.get("version"), info.get("critic_version")
        # Who plays without a critic records none.
        if isinstance(version, int) and (not critic or self.critics[version : version + 1] == [critic]):
            return version
        if critic not in self.critics:
            return None
        # While nothing is learnt yet, several versions have one critic; the newest of them is the one in use.
        return len(self.critics) - 1 - self.critics[::-1].index(critic)


@dataclass(frozen=True)
class Round:
    """What is told of a round. Times in seconds; NaN where there is nothing to tell."""

    version: int
    episodes: int
    control_steps: int
    robot_minutes: float
    success: float
    rolling_success: float
    utd: float
    critic_updates: int
    policy_updates: int
    behaviour_age: int | None
    """Versions between the one that played the newest episode and the newest that was out; None where nobody knows."""
    seconds: float
    """Wall time since the start of the run."""
    metrics: Mapping[str, float] = field(default_factory=dict)


def read_rounds(path: Path) -> list[dict[str, Any]]:
    """The lines of a run's rounds.jsonl, each a `Round` as JSON; one that was cut off by a kill is passed over."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]
