"""`Robot`: acts. A simulated arm is one. `RobotSpec` is what both sides of the wire are checked against."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from jaxtyping import Float

from steer.action import ActionSpec
from steer.errors import ConfigError, SpecError
from steer.observation import ObservationSpec
from steer.serial import from_json, to_json
from steer.spec import Array


@dataclass(frozen=True)
class RobotSpec:
    """What a robot says of itself.

    hold: what standing still means: "zero" (a zero on every delta or velocity axis, the last command on `keep`),
        "repeat" (send the last command again; the only way for absolute commands, where zeros are a place to go to).
    keep: axes that keep their last command while holding (the gripper).
    max_step: per axis, the largest change between consecutive commands in the axis's unit; empty: no limit.
    """

    name: str
    action: ActionSpec
    observation: ObservationSpec
    hold: Literal["zero", "repeat"] = "zero"
    keep: tuple[str, ...] = ()
    max_step: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        unknown = [name for name in self.keep if name not in self.action.names]
        if unknown:
            raise SpecError(f"robot {self.name!r}: keep names {unknown}, but the axes are {list(self.action.names)}")
        if self.action.kind == "absolute" and self.hold == "zero":
            raise SpecError(
                f"robot {self.name!r}: hold is 'zero', but its actions are absolute, so that holding would send it to zero: "
                "set hold to 'repeat'"
            )
        if self.max_step and len(self.max_step) != self.action.size:
            raise SpecError(
                f"robot {self.name!r}: {len(self.max_step)} step limits for {self.action.size} axes: give one each"
            )

    def hold_action(self, last: Float[np.ndarray, " a"] | None) -> Float[np.ndarray, " a"] | None:
        """The command that keeps the robot where it is; `last` is the last command sent, None before the first.

        None: there is no such command yet, so nothing may be sent (`Robot.hold` stands still without one).
        """
        if self.hold == "repeat":
            return last
        zero = np.clip(np.zeros(self.action.size, np.float32), self.action.low, self.action.high)
        if last is None:
            return zero
        kept = np.array([name in self.keep for name in self.action.names])
        return np.where(kept, last, zero).astype(np.float32)


def read_robot(path: Path) -> RobotSpec:
    """A `RobotSpec` from a JSON sidecar; raises `ConfigError` or `SpecError` that names the file."""
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"robot sidecar {path} cannot be read ({error.strerror}): check the path") from error
    except ValueError as error:
        raise ConfigError(f"robot sidecar {path} is not JSON ({error})") from error
    return from_json(RobotSpec, content, str(path))


def write_robot(path: Path, robot: RobotSpec) -> None:
    """Write the sidecar, for a person to complete."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(to_json(robot), indent=1) + "\n")
    except OSError as error:
        raise ConfigError(f"cannot write {path} ({error.strerror}): give another place") from error


@dataclass(frozen=True)
class Frame:
    """One reading of the sensors: key -> array without a time axis, and the monotonic time of capture."""

    arrays: Mapping[str, Array]
    time_s: float


class Robot(Protocol):
    """Acts. `observe` never blocks; `send` returns what was really sent; every method may raise `RobotError`."""

    @property
    def spec(self) -> RobotSpec: ...

    def connect(self) -> None: ...

    def home(self) -> None:
        """Bring the robot to the start of an episode; returns when it is there."""
        ...

    def observe(self) -> Frame:
        """The latest frames, with their time."""
        ...

    def send(self, action: Float[np.ndarray, " a"]) -> Float[np.ndarray, " a"]:
        """Command one step; returns what was sent after the driver's own limits."""
        ...

    def hold(self) -> None:
        """Stand still now."""
        ...

    def close(self) -> None: ...
