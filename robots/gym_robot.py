"""Any gymnasium environment as a `Robot`: what drives an arm drives a simulation.

Each `send` steps the environment once; no time passes otherwise. A robot has no notion of reward or success, an environment
has: `outcome` says what the last command led to, and `ended` that the episode is over and `home` begins the next one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from robots.limits import within_bounds
from steer.environment import Environment, Outcome
from steer.errors import ConfigError, RobotError
from steer.observation import Task
from steer.options import integer, json_or_text
from steer.robot import Frame, RobotSpec, read_robot

KEY_PREFIX: Final = "key."


class GymRobot:
    """One environment behind `steer.robot.Robot`.

    env_kwargs: passed to `gymnasium.make`.
    seed: of the first episode; every further `home` takes the next number.
    robot: what the actions mean, for an environment that does not carry a `robot_spec`.
    keys: our observation key -> the environment's, see `steer.environment.Environment`.
    """

    def __init__(
        self,
        env_id: str,
        env_kwargs: Mapping[str, Any] | None = None,
        seed: int = 0,
        robot: RobotSpec | None = None,
        keys: Mapping[str, str] | None = None,
    ) -> None:
        self._environment = Environment(env_id, env_kwargs, robot, keys)
        self._next_seed = seed
        self._frame: Frame | None = None
        self._last: Float[np.ndarray, " a"] | None = None
        self.outcome: Outcome | None = None
        """What the last command led to; None before the first of an episode."""
        self.seed: int | None = None
        """Names the episode that runs; None before the first."""

    @property
    def spec(self) -> RobotSpec:
        return self._environment.robot

    @property
    def task(self) -> Task:
        """What the environment asks for in this episode."""
        return self._environment.task

    @property
    def ended(self) -> bool:
        """Is the episode over, by its own end or by the environment's time limit."""
        return self.outcome is not None and (self.outcome.terminated or self.outcome.truncated)

    def connect(self) -> None:
        """Nothing to do: the environment was made with the robot, as it says what the robot is."""

    def home(self) -> None:
        """Reset the environment with the next seed."""
        self.seed = self._next_seed
        self._next_seed += 1
        self._frame = _now(self._environment.reset(self.seed))
        self.outcome = None
        self._last = None

    def observe(self) -> Frame:
        """What the last step showed, with the time at which it was made."""
        if self._frame is None:
            raise RobotError("no episode has begun: call home() first")
        return self._frame

    def send(self, action: Float[np.ndarray, " a"]) -> Float[np.ndarray, " a"]:
        """Step the environment once with the action, within its bounds; `RobotError` when the episode is over."""
        if self._frame is None or self.ended:
            raise RobotError("no episode is running: call home() to begin the next one")
        clipped = within_bounds(self.spec.action, action)
        self.outcome = self._environment.step(clipped)
        self._frame = _now(self.outcome.frame)
        self._last = clipped
        return clipped

    def hold(self) -> None:
        """Let one step pass in place; nothing when no episode is running or nothing was commanded, as then nothing moves."""
        action = self.spec.hold_action(self._last)
        if action is not None and self._frame is not None and not self.ended:
            self.send(action)

    def render(self) -> NDArray[np.uint8]:
        """A picture, uint8[h, w, 3], if the environment was made with render_mode="rgb_array"."""
        return self._environment.render()

    def close(self) -> None:
        self._environment.close()


def create(place: str, options: Mapping[str, str]) -> GymRobot:
    """`gym:ENV_ID?seed=3&robot_spec=robot.json&key.state=observation&horizon=200`.

    robot_spec: a sidecar that says what the actions mean. An option that is none of these goes to the environment; its
    value is read as JSON where it is JSON (numbers, true, lists), and as text otherwise.
    """
    if not place:
        raise ConfigError("robot 'gym' needs an environment: write gym:ENV_ID, for example gym:steer/PickPlace-v0")
    keys = {name.removeprefix(KEY_PREFIX): key for name, key in options.items() if name.startswith(KEY_PREFIX)}
    robot = read_robot(Path(options["robot_spec"])) if "robot_spec" in options else None
    own = ("seed", "robot_spec")
    env_kwargs = {
        name: json_or_text(text)
        for name, text in options.items()
        if name not in own and not name.startswith(KEY_PREFIX)
    }
    return GymRobot(place, env_kwargs, integer(options, "seed", 0), robot, keys)


def _now(frame: Frame) -> Frame:
    """Environments count simulated time; a robot's frames carry the clock of the process."""
    return Frame(frame.arrays, time.monotonic())
