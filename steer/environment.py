"""`Environment`: any gymnasium environment in Steer's vocabulary.

An environment that carries a `robot_spec` says itself what its actions mean; for another one the caller gives a `RobotSpec` and a
mapping of observation keys. Nothing here knows a particular task.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from steer.draft import draft_robot
from steer.errors import ConfigError, MissingExtraError
from steer.observation import Task
from steer.robot import Frame, RobotSpec
from steer.spec import Array, ArraySpec

WHOLE = ""
"""As an environment key: the observation itself, for spaces that are no Dict."""


@dataclass(frozen=True)
class Outcome:
    """What one step led to. `success` comes from info["success"] (or "is_success"), else from a positive terminal reward."""

    frame: Frame
    reward: float
    terminated: bool
    truncated: bool
    success: bool


class Environment:
    """One environment. Frames carry simulated time, so that the same seed gives the same frames."""

    def __init__(
        self,
        env_id: str,
        options: Mapping[str, Any] | None = None,
        robot: RobotSpec | None = None,
        keys: Mapping[str, str] | None = None,
    ) -> None:
        """keys: our observation key -> the environment's key, `WHOLE` for a space that is no Dict."""
        self._env = _make(env_id, dict(options or {}))
        given = _default_keys(self._env)
        carried = getattr(self._env.unwrapped, "robot_spec", None)
        self.robot: RobotSpec = robot or carried or _draft(self._env, env_id, keys or given)
        # An environment may show more than its robot spec lists.
        self._keys = dict(keys or {name: key for name, key in given.items() if name in self.robot.observation.keys})
        self._check_keys(env_id)
        self.task = Task()
        self._tick = 0

    def reset(self, seed: int) -> Frame:
        """Start the episode that `seed` names."""
        observation, info = self._env.reset(seed=seed)
        self.task = Task(str(info.get("task", "")))
        self._tick = 0
        return self._frame(observation)

    def step(self, action: Float[np.ndarray, " a"]) -> Outcome:
        """Execute one action in the robot's units; raises `SpecError` unless it conforms to the spec."""
        self.robot.action.validate(action, "action")
        observation, reward, terminated, truncated, info = self._env.step(action)
        self._tick += 1
        success = info.get("success", info.get("is_success"))
        if success is None:
            success = terminated and float(reward) > 0
        return Outcome(self._frame(observation), float(reward), bool(terminated), bool(truncated), bool(success))

    def render(self) -> NDArray[np.uint8]:
        """A picture of the scene, uint8[h, w, 3]; the environment must have been made with render_mode="rgb_array"."""
        picture = self._env.render()
        if not isinstance(picture, np.ndarray):
            raise ConfigError("the environment gives no pictures: make it with render_mode=rgb_array")
        return picture

    def save(self) -> Any:
        """The exact state, for `restore`; only for environments that can."""
        if not hasattr(self._env.unwrapped, "save"):
            raise ConfigError("this environment cannot save its state")
        return (self._env.unwrapped.save(), self._tick)

    def restore(self, state: Any) -> None:
        """Go back to a saved state; what follows is what followed it the first time."""
        saved, self._tick = state
        self._env.unwrapped.restore(saved)

    def release(self, state: Any) -> None:
        """Free a saved state, for environments that keep it in a simulator."""
        saved, _ = state
        if hasattr(saved, "release"):
            saved.release()

    def close(self) -> None:
        self._env.close()

    def _frame(self, observation: Any) -> Frame:
        arrays = {
            name: _conform(observation if key == WHOLE else observation[key], self.robot.observation[name])
            for name, key in self._keys.items()
        }
        return Frame(arrays, self._tick / self.robot.action.rate_hz)

    def _check_keys(self, env_id: str) -> None:
        given = list(_default_keys(self._env).values())
        for name, key in self._keys.items():
            if key not in given:
                raise ConfigError(f"{env_id} has no observation {key!r} (mapped to {name!r}); it has {given}")
        missing = [name for name in self.robot.observation.keys if name not in self._keys]
        if missing:
            raise ConfigError(f"{env_id}: nothing is mapped to {missing}: add OUR_KEY=ENV_KEY; it has {given}")


def _draft(env: Any, env_id: str, keys: Mapping[str, str]) -> RobotSpec:
    """A `RobotSpec` as far as the spaces tell; what they do not is "unknown" and has to be stated before models fit."""
    import gymnasium

    space = env.action_space
    if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
        raise ConfigError(f"{env_id}: action space {space} is not a vector of numbers; Steer needs a Box of shape (A,)")
    if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise ConfigError(f"{env_id}: the action space has no finite bounds: state them in a robot sidecar")
    spaces = getattr(env.observation_space, "spaces", {WHOLE: env.observation_space})
    missing = [key for key in keys.values() if key not in spaces]
    if missing:
        raise ConfigError(f"{env_id} has no observations {missing}; it has {sorted(spaces)}")
    rate_hz = float(env.metadata.get("render_fps", 20))
    arrays = [_draft_array(name, spaces[key]) for name, key in keys.items()]
    return draft_robot(env_id, np.stack([space.low, space.high]), arrays, rate_hz)


def _draft_array(name: str, space: Any) -> ArraySpec:
    return ArraySpec(name, "uint8" if space.dtype == np.uint8 else "float32", tuple(space.shape))


def _default_keys(env: Any) -> dict[str, str]:
    space = env.observation_space
    if hasattr(space, "spaces"):
        return {key: key for key in space.spaces}
    return {"state": WHOLE}


def _conform(value: Any, spec: ArraySpec) -> Array:
    """Numbers of any float type become the spec's; everything else must fit as it is."""
    array = np.asarray(value)
    if array.dtype.kind == "f" and array.dtype != np.dtype(spec.dtype):
        array = array.astype(spec.dtype)
    spec.validate(array)
    return array


def _make(env_id: str, options: dict[str, Any]) -> Any:
    try:
        import gymnasium
    except ImportError as error:
        raise MissingExtraError("gymnasium", "sim", f"environment {env_id!r}") from error
    for plugin in entry_points(group="gymnasium.envs"):
        # gymnasium itself does this in some versions only; registering twice changes nothing.
        plugin.load()()
    try:
        return gymnasium.make(env_id, **options)
    except gymnasium.error.Error as error:
        raise ConfigError(
            f"environment {env_id!r}: {error}: check the id, and that the package that registers it is installed"
        ) from error
    except TypeError as error:
        raise ConfigError(f"environment {env_id!r} does not take these options {sorted(options)}: {error}") from error
