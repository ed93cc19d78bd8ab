"""Outcomes: who says what a step earned and whether an episode succeeded, and why it ended.

Success is a statement of somebody: the simulator's truth, a person's key, a classifier. Who said so is stored beside it
(`Episode.success_source`), and a later statement can correct it (`steer label`). Nobody having said anything is a state of its
own, None, and not a failure.

Sources on the robot are asked once per tick and must not block. A classifier is no such source: it is a trained network, and
the robot's side runs without a framework; it labels the store instead (`steer.data.labelling`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

StoppedBy: TypeAlias = Literal["end", "limit", "key", "signal", "stop", "safety", "fault"]
"""Why an episode ended, in its info as "stopped_by":

end     the task is over: its world says so, or whoever judges it
limit   the time for the run or for the episode is over
key     a person pressed a stop key
signal  the process was told to end
stop    the program that runs the loop stopped it
safety  what came from the models could not be sent, again and again
fault   something broke: the robot, the server, the program

All but "end" are truncations: what would have come next is unknown.
"""


@dataclass(frozen=True)
class Judgement:
    """What a source says after one step.

    reward: for that step. terminated: the task is over for good. truncated: the episode is over, the task is not.
    success: None says nothing. One who says True in passing and then nothing has said True.
    """

    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    success: bool | None = None

    @property
    def ended(self) -> bool:
        """The episode is over."""
        return self.terminated or self.truncated


NOTHING = Judgement()
"""A source that has nothing to say."""


class OutcomeSource(Protocol):
    """Says what steps led to. `name` is stored with every success it states."""

    @property
    def name(self) -> str: ...

    def begin(self) -> None:
        """An episode begins; what was said before is not about it."""
        ...

    def judge(self) -> Judgement:
        """About the step that was just sent; must not block."""
        ...
