"""Sources of outcomes on the robot's side: the world's own truth where it has one, and a person's key.

See `steer.outcome` for the protocol, and for why a classifier is not among them.
"""

from __future__ import annotations

import queue
from typing import Final, Protocol, runtime_checkable

from steer.errors import ConfigError
from steer.outcome import NOTHING, Judgement, OutcomeSource
from steer.robot import Robot

SIMULATOR: Final = "simulator"
KEY: Final = "key"
SUCCESS_KEY, FAILURE_KEY = "y", "n"


class StepOutcome(Protocol):
    """What one command led to, as a simulation knows it."""

    @property
    def reward(self) -> float: ...
    @property
    def terminated(self) -> bool: ...
    @property
    def truncated(self) -> bool: ...
    @property
    def success(self) -> bool: ...


@runtime_checkable
class EpisodicRobot(Protocol):
    """A robot whose world ends episodes by itself: a simulation. `outcome` is None before the first command of one."""

    @property
    def outcome(self) -> StepOutcome | None: ...


class SimulatorOutcome:
    """The truth of a robot whose world knows it."""

    name = SIMULATOR

    def __init__(self, robot: EpisodicRobot) -> None:
        self._robot = robot

    def begin(self) -> None: ...

    def judge(self) -> Judgement:
        outcome = self._robot.outcome
        if outcome is None:
            return NOTHING
        return Judgement(outcome.reward, outcome.terminated, outcome.truncated, bool(outcome.success))


class KeyOutcome:
    """A person presses y or n: the episode is over, and it succeeded or it did not.

    A success is worth a reward of 1 and ends the task; a failure ends the episode alone, as running out of time does in a
    simulation: nobody knows what would have come of a further try.
    """

    name = KEY

    def __init__(self) -> None:
        self._keys: queue.SimpleQueue[str] = queue.SimpleQueue()

    def press(self, key: str) -> None:
        """A key was pressed; from any thread."""
        if key in (SUCCESS_KEY, FAILURE_KEY):
            self._keys.put(key)

    def begin(self) -> None:
        self._last_key()

    def judge(self) -> Judgement:
        key = self._last_key()
        if key is None:
            return NOTHING
        success = key == SUCCESS_KEY
        return Judgement(float(success), terminated=success, truncated=not success, success=success)

    def _last_key(self) -> str | None:
        key = None
        while not self._keys.empty():
            key = self._keys.get()
        return key


class NoOutcome:
    """Says nothing, also where the robot's world would know: episodes stay unlabelled until somebody labels the store."""

    name = "none"

    def begin(self) -> None: ...

    def judge(self) -> Judgement:
        return NOTHING


def outcome_source(name: str, robot: Robot) -> OutcomeSource | None:
    """The source called `name`: "simulator", "key", "none", or "" for the robot's own where it has one."""
    if name.partition(":")[0] == "classifier":
        raise ConfigError(
            f"outcome {name!r}: a classifier runs where torch is, not beside the robot: record with 'key' or 'none', then "
            f"steer label STORE --classifier {name.partition(':')[2] or 'PATH'}"
        )
    if name == KEY:
        return KeyOutcome()
    if name in ("", SIMULATOR) and isinstance(robot, EpisodicRobot):
        return SimulatorOutcome(robot)
    if name == SIMULATOR:
        raise ConfigError(
            f"outcome 'simulator': robot {robot.spec.name!r} is no simulation and knows no outcome: use 'key'"
        )
    if name == NoOutcome.name:
        return NoOutcome()
    if not name:
        return None
    raise ConfigError(f"outcome {name!r}: there is no such source: give simulator, key or none")
