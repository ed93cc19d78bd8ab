"""Who judges episodes and who may take over, by name, for `steer run`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steer.client.gamepad import DEVICE, GamepadIntervener
from steer.client.outcomes import FAILURE_KEY, SUCCESS_KEY, KeyOutcome, outcome_source
from steer.client.teleoperation import KeyboardIntervener
from steer.errors import ConfigError
from steer.intervention import Intervener
from steer.model_name import ModelName
from steer.outcome import OutcomeSource
from steer.robot import Robot


@dataclass(frozen=True)
class Operators:
    """keys: who listens to the keyboard. help: what to press, one line each."""

    outcome: OutcomeSource | None
    intervener: Intervener | None
    keys: tuple[Callable[[str], None], ...] = ()
    help: tuple[str, ...] = ()

    def check(self, terminal: bool) -> None:
        """Raise `ConfigError` where somebody is to press keys and cannot."""
        if self.keys and not terminal:
            raise ConfigError("keys are to judge or to take over, but standard input is no terminal: run it in one")


@contextmanager
def operators(outcome: str, intervener: str, robot: Robot) -> Iterator[Operators]:
    """The source and the intervener of these names, see `steer run --help`."""
    source = outcome_source(outcome, robot)
    keys: list[Callable[[str], None]] = []
    lines = []
    if isinstance(source, KeyOutcome):
        keys.append(source.press)
        lines.append(f"{SUCCESS_KEY} ends the episode as a success, {FAILURE_KEY} as a failure")
    who: Any = _intervener(intervener, robot)
    if hasattr(who, "press"):
        keys.append(who.press)
    if hasattr(who, "explain"):
        lines.append(who.explain())
    try:
        yield Operators(source, who, tuple(keys), tuple(lines))
    finally:
        if hasattr(who, "close"):
            who.close()


def _intervener(text: str, robot: Robot) -> Intervener | None:
    if not text:
        return None
    name = ModelName.parse(text if ":" in text else f"{text}:")
    if name.kind == "keyboard":
        return KeyboardIntervener(robot.spec)
    if name.kind == "gamepad":
        return GamepadIntervener(robot.spec, Path(name.place) if name.place else DEVICE)
    if name.kind == "expert":
        # Only who asks for it needs what the simulation needs.
        from sim.intervene import create

        return create(name.options)
    raise ConfigError(f"--intervene {text!r}: nobody is called so: give keyboard, gamepad or expert")
