"""`Episode`: what happened, from the first observation to the one after the last action; and its check against a robot.

    observations  key -> [N + 1, ...]   dtype and shape of one frame as in the robot's observation spec
    actions       float32[N, A]         what was sent, in robot units
    rewards       float32[N]
    steps         key -> [N, ...]       anything else worth keeping per step; numbers or booleans, NaN where there is none

Knows nothing of files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from steer.errors import SpecError
from steer.observation import Task
from steer.robot import RobotSpec
from steer.spec import Array

# Array names become folder names on disk; anything else could leave the store.
_ARRAY_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")


@dataclass(frozen=True)
class Episode:
    """One episode, see the module's contract.

    terminated: the last step ended the task for good (no value lies beyond it). truncated: time ran out.
    success: None while nobody has said. success_source: who said so ("simulator", "key", "classifier", "file").
    source: who acted ("expert", "policy", ...). info: JSON (seed, mode, versions).
    """

    observations: Mapping[str, Array]
    actions: Float[np.ndarray, "n a"]
    rewards: Float[np.ndarray, " n"]
    terminated: bool
    truncated: bool
    success: bool | None = None
    success_source: str = ""
    task: Task = Task()
    source: str = ""
    steps: Mapping[str, Array] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        """N, the number of actions."""
        return int(self.actions.shape[0])


@dataclass(frozen=True)
class EpisodeRecord:
    """What is known of a stored episode without reading its arrays.

    id: names it in its store for good. length: N. label_version: 0 as recorded, else the line of the label that holds.
    corrected: that label says otherwise than what was recorded. task: the instruction alone; a goal image is read with the episode.
    """

    id: str
    length: int
    success: bool | None
    success_source: str
    source: str
    terminated: bool
    truncated: bool
    task: Task = Task()
    info: Mapping[str, Any] = field(default_factory=dict)
    label_version: int = 0
    corrected: bool = False


def check_episode(episode: Episode, robot: RobotSpec) -> None:
    """Raise `SpecError` unless the episode is what `robot` could have produced."""
    length = _check_actions(episode, robot)
    _check_observations(episode, robot, length)
    _check_steps(episode.steps, length)
    _check_words(episode)


def _check_actions(episode: Episode, robot: RobotSpec) -> int:
    """N, once actions and rewards are known to fit."""
    robot.action.validate(episode.actions)
    if episode.actions.ndim != 2 or not len(episode.actions):
        raise SpecError(
            f"actions: got shape {episode.actions.shape}, expected (N, {robot.action.size}) with N of 1 or more"
        )
    length = len(episode.actions)
    rewards = episode.rewards
    if not isinstance(rewards, np.ndarray) or rewards.dtype != np.float32 or rewards.shape != (length,):
        got = f"{rewards.dtype} {rewards.shape}" if isinstance(rewards, np.ndarray) else type(rewards).__name__
        raise SpecError(f"rewards: got {got}, expected float32 ({length},): one per action")
    if not np.isfinite(rewards).all():
        raise SpecError(f"rewards: step {int(np.argmin(np.isfinite(rewards)))} is not finite")
    return length


def _check_observations(episode: Episode, robot: RobotSpec, length: int) -> None:
    missing = sorted(set(robot.observation.keys) - set(episode.observations))
    surplus = sorted(set(episode.observations) - set(robot.observation.keys))
    if missing or surplus:
        raise SpecError(
            f"observations: {missing} missing, {surplus} not in the spec of robot {robot.name!r}: "
            f"give exactly {list(robot.observation.keys)}, or add the key to the robot spec of a new store"
        )
    for spec in robot.observation.arrays:
        value = episode.observations[spec.name]
        spec.validate(value, leading=1)
        if len(value) != length + 1:
            raise SpecError(
                f"observation {spec.name!r}: got {len(value)} frames for {length} actions, expected {length + 1}: "
                "the observation after the last action belongs to the episode"
            )
        _check_name(spec.name)


def _check_steps(steps: Mapping[str, Array], length: int) -> None:
    for name, value in steps.items():
        _check_name(name)
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
            got = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
            raise SpecError(f"steps {name!r}: got {got}, expected an array of numbers or booleans")
        if value.ndim < 1 or len(value) != length:
            raise SpecError(f"steps {name!r}: got shape {value.shape}, expected ({length}, ...): one row per action")


def _check_words(episode: Episode) -> None:
    """Flags, texts and info must survive JSON unchanged."""
    if episode.success is not None and not isinstance(episode.success, bool):
        raise SpecError(
            f"success: got {type(episode.success).__name__}, expected True, False or None: convert it with bool()"
        )
    for name in ("terminated", "truncated"):
        if not isinstance(getattr(episode, name), bool):
            raise SpecError(
                f"{name}: got {type(getattr(episode, name)).__name__}, expected a bool: convert it with bool()"
            )
    try:
        json.dumps(dict(episode.info), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise SpecError(f"info: {error}: give plain JSON (text, finite numbers, lists, mappings)") from error
    image = episode.task.goal_image
    if image is not None and (image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3):
        raise SpecError(f"task goal_image: got {image.dtype} {image.shape}, expected uint8 (height, width, 3)")


def _check_name(name: str) -> None:
    if not _ARRAY_NAME.fullmatch(name):
        raise SpecError(
            f"array name {name!r} cannot be stored: use letters, digits, '_', '-' and '.', not starting with '.' or '-'"
        )
