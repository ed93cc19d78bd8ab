"""Episodes as plain `.npz` files, one each: the simplest form in which somebody can hand over their data.

    observation.<key>   [N + 1, ...], or [N, ...] where the observation after the last action was not kept
    action              [N, A]
    reward              [N]; absent: 1 at the last step of a successful episode, else 0
    success             one boolean; absent: nobody has said
    terminated          one boolean or one per step; absent: a success ends the task
    truncated           likewise; absent: the episode ended without being terminated
    step.<name>         [N, ...], kept beside the steps
    instruction         text

Floats of any width become float32. Pickled content is refused.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from steer.data.episode import Episode
from steer.draft import draft_robot
from steer.errors import SpecError, StoreError
from steer.observation import Task
from steer.robot import RobotSpec
from steer.spec import Array, ArraySpec

_OBSERVATION, _STEP = "observation.", "step."
_SINGLE = ("action", "reward", "success", "terminated", "truncated", "instruction")


def npz_files(folder: Path) -> list[Path]:
    """The episodes of a folder, in the order of their names."""
    return sorted(folder.glob("*.npz"))


def read_npz(path: Path) -> Episode:
    """One file as an episode. Raises `StoreError` or `SpecError` that names the file."""
    arrays = _load(path)
    strange = [key for key in arrays if key not in _SINGLE and not key.startswith((_OBSERVATION, _STEP))]
    if strange or "action" not in arrays:
        raise SpecError(
            f"{path}: {'has no action' if 'action' not in arrays else f'cannot place {strange}'}; "
            f"it has {sorted(arrays)}, expected observation.<key>, action and optionally {list(_SINGLE[1:])}, step.<name>"
        )
    action = _narrow(arrays["action"])
    if action.ndim != 2 or not len(action):
        raise SpecError(f"{path}: action has shape {action.shape}, expected (N, A) with N of 1 or more")
    success = bool(_last(arrays, "success", path)) if "success" in arrays else None
    terminated = bool(_last(arrays, "terminated", path)) if "terminated" in arrays else bool(success)
    return Episode(
        observations=_observations(arrays, len(action), path),
        actions=action.astype(np.float32),
        rewards=_rewards(arrays, len(action), bool(success)),
        terminated=terminated,
        truncated=bool(_last(arrays, "truncated", path)) if "truncated" in arrays else not terminated,
        success=success,
        success_source="" if success is None else "file",
        task=Task(str(arrays["instruction"])) if "instruction" in arrays else Task(),
        source="file",
        steps={key.removeprefix(_STEP): _narrow(value) for key, value in arrays.items() if key.startswith(_STEP)},
        info={"file": path.name},
    )


def draft_from_npz(
    files: Sequence[Path], name: str, rate_hz: float, progress: Callable[[int, int], None] | None = None
) -> RobotSpec:
    """A robot spec that these episodes conform to; reads every file once, for the bounds of the actions."""
    bounds: Array | None = None
    first = read_npz(files[0])
    for done, path in enumerate(files, start=1):
        actions = read_npz(path).actions
        if actions.shape[1] != first.actions.shape[1]:
            raise SpecError(f"{path}: {actions.shape[1]} action axes, {files[0].name} has {first.actions.shape[1]}")
        found = np.stack([actions.min(axis=0), actions.max(axis=0)])
        bounds = (
            found if bounds is None else np.stack([np.minimum(bounds[0], found[0]), np.maximum(bounds[1], found[1])])
        )
        if progress is not None:
            progress(done, len(files))
    assert bounds is not None
    arrays = [ArraySpec(key, str(value.dtype), value.shape[1:]) for key, value in sorted(first.observations.items())]
    return draft_robot(name, bounds, arrays, rate_hz)


def _load(path: Path) -> dict[str, Array]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise StoreError(f"{path} cannot be read ({error}): save it again with numpy.savez and plain arrays") from error


def _observations(arrays: dict[str, Array], length: int, path: Path) -> dict[str, Array]:
    observations = {}
    for name, array in arrays.items():
        if not name.startswith(_OBSERVATION):
            continue
        value = _narrow(array)
        if value.ndim < 1 or len(value) not in (length, length + 1):
            raise SpecError(
                f"{path}: {name} has shape {value.shape}, expected {length} or {length + 1} rows for {length} actions"
            )
        if len(value) == length:
            value = np.concatenate([value, value[-1:]])
        observations[name.removeprefix(_OBSERVATION)] = value[:, None] if value.ndim == 1 else value
    return observations


def _rewards(arrays: dict[str, Array], length: int, success: bool) -> Array:
    if "reward" in arrays:
        return np.asarray(arrays["reward"], np.float32)
    rewards = np.zeros(length, np.float32)
    rewards[-1] = success
    return rewards


def _last(arrays: dict[str, Array], name: str, path: Path) -> bool:
    value = arrays[name]
    if value.dtype.kind not in "biu" or value.ndim > 1 or not value.size:
        raise SpecError(f"{path}: {name} is {value.dtype} {value.shape}, expected one boolean, or one per step")
    return bool(value.reshape(-1)[-1])


def _narrow(value: Array) -> Array:
    return value.astype(np.float32) if value.dtype.kind == "f" else value
