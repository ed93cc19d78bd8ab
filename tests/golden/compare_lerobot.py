"""LeRobot checkpoints against LeRobot's own outputs, through a worker in LeRobot's environment.

A case is a folder with `golden.npz`; its checkpoint is `pretrained_model/` there, or the folder itself, with weights built by a
formula from `tensors.json` (names, shapes, dtypes) where none are stored.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from policies.lerobot import load
from policies.lerobot.environment import find_python
from policies.lerobot.features import VISUAL, Feature, read_json
from policies.lerobot.policy import LeRobotPolicy
from policies.lerobot.steps import NORMALIZER, PRE, read_steps, state_file
from steer.errors import ConfigError
from steer.history import History
from steer.model_name import ModelName
from steer.observation import Batch
from steer.robot import Frame
from steer.spec import Array
from tests.golden.comparison import Comparison, close

BOUND = 1e-5
"""Absolute, across machines; on the machine and the torch that made them, differences are zero."""

Frames = list[dict[str, Array]]


def compare(folder: Path) -> Iterator[Comparison]:
    """Every case below the folder."""
    cases = sorted(path.parent for path in folder.rglob("golden.npz"))
    if not cases:
        raise FileNotFoundError(f"{folder}: no golden.npz below it")
    try:
        find_python()
    except ConfigError:
        # A row that fails, so that nothing is left out and the other families are still compared.
        yield Comparison(str(folder), "not compared: run `make install-lerobot` first", math.inf, BOUND)
        return
    for case in cases:
        with tempfile.TemporaryDirectory() as aside:
            checkpoint = stored_or_built(case, Path(aside))
            policy = load(ModelName("lerobot", str(checkpoint)))
            try:
                yield from compare_case(case, checkpoint, policy)
            finally:
                policy.close()


def compare_case(case: Path, checkpoint: Path, policy: LeRobotPolicy) -> Iterator[Comparison]:
    """The arrays of a case against the policy of its checkpoint folder."""
    golden = np.load(case / "golden.npz", allow_pickle=False)
    keys = _keys(checkpoint)
    windows = _windows(policy, _frames(golden, keys))
    yield from _inputs(case.name, policy, windows[0], golden, keys)
    yield from _episode(case.name, policy, windows, golden)
    if any(name.startswith("k4/") for name in golden):
        yield from _candidates(case.name, policy, _history(golden, checkpoint, keys), golden)


def formula(tensors: Mapping[str, tuple[list[int], str]]) -> dict[str, Array]:
    """Weights that depend on nothing but each tensor's name and shape."""
    return {name: _tensor(name, tuple(shape), dtype) for name, (shape, dtype) in tensors.items()}


def _tensor(name: str, shape: tuple[int, ...], dtype: str) -> Array:
    kind = np.dtype(dtype.removeprefix("torch."))
    if kind.kind != "f" or name.endswith("running_mean"):
        return np.zeros(shape, kind)
    if name.endswith("running_var"):
        return np.ones(shape, kind)
    value = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    if len(shape) > 1:
        return np.asarray(value / np.float32(np.sqrt(np.prod(shape[1:]))), kind)
    return np.asarray(value * np.float32(0.1) + np.float32(name.endswith("weight")), kind)


def stored_or_built(case: Path, aside: Path) -> Path:
    """The folder to load; written to `aside` where the weights are not stored."""
    stored = case / "pretrained_model"
    if stored.is_dir():
        return stored
    for path in (*case.glob("*.json"), *case.glob("*.safetensors")):
        if path.name != "tensors.json":
            shutil.copy(path, aside)
    tensors = json.loads((case / "tensors.json").read_text())
    save_file(formula(tensors), aside / "model.safetensors")
    return aside


def _keys(checkpoint: Path) -> dict[str, str]:
    """Input feature -> our key."""
    features = read_json(checkpoint / "config.json")["input_features"]
    return {name: Feature(name, entry["type"], tuple(entry["shape"])).default_key for name, entry in features.items()}


def _frames(golden: Mapping[str, Array], keys: Mapping[str, str]) -> Frames:
    """obs0, obs1, ... of the consecutive calls."""
    steps = sorted({int(found[1]) for name in golden if (found := re.match(r"obs(\d+)/", name))})
    return [{ours: golden[f"obs{t}/{name}"] for name, ours in keys.items()} for t in steps]


def _windows(policy: LeRobotPolicy, frames: Frames) -> list[Batch]:
    """What the policy is shown at each step: LeRobot fills its queue with the first frame, as our history does."""
    history = History(policy.spec.observation)
    windows = []
    for frame in frames:
        history.push(Frame(frame, 0.0))
        windows.append(Batch.stack([history.observation()]))
    return windows


def _inputs(
    source: str, policy: LeRobotPolicy, first: Batch, golden: Mapping[str, Array], keys: Mapping[str, str]
) -> Iterator[Comparison]:
    inputs = policy.inputs(first)
    for name in keys:
        yield close(source, f"pre-processed {name}", inputs[name][:, -1], golden[f"pre0/{name}"], BOUND)


def _episode(
    source: str, policy: LeRobotPolicy, windows: list[Batch], golden: Mapping[str, Array]
) -> Iterator[Comparison]:
    """One action per call, from a new chunk whenever the last one is used up."""
    noise = golden["noise"] if policy.spec.stochastic else None
    chunks = [policy.trace(policy.encode(window), noise) for window in windows[:: policy.spec.horizon]]
    queue = golden["queue_after_first_call_normalized"]
    yield close(source, "first chunk, normalised", np.moveaxis(chunks[0][0], 1, 0), queue, BOUND)
    actions = np.concatenate([actions[0] for _, actions in chunks])[: len(windows)]
    yield close(source, "actions of the episode", actions, golden["actions"], BOUND)


def _candidates(
    source: str, policy: LeRobotPolicy, history: Batch, golden: Mapping[str, Array]
) -> Iterator[Comparison]:
    """Several noises for one history, in one batch."""
    normalised, actions = policy.trace(policy.encode(history), golden["k4/noise"])
    yield close(source, "candidates, normalised", normalised, golden["k4/chunk_normalized"], BOUND)
    yield close(source, "candidates", actions, golden["k4/chunk_unnormalized"], BOUND)


def _history(golden: Mapping[str, Array], checkpoint: Path, keys: Mapping[str, str]) -> Batch:
    """The history of k4/*, which is stored as the policy sees it: taken back to the sensors' units."""
    stored = {"observation.state": "k4/state_normalized", "observation.environment_state": "k4/env_normalized"}
    steps = read_steps(checkpoint / PRE)
    statistics = load_file(state_file(checkpoint / PRE, steps, NORMALIZER) or checkpoint)
    config = next(step["config"] for step in steps if step["registry_name"] == NORMALIZER)
    arrays = {}
    for name, ours in keys.items():
        kind = config["features"][name]["type"]
        assert kind != VISUAL, "k4/* is stored for vectors only"
        of = {stat: statistics[f"{name}.{stat}"].astype(np.float64) for stat in ("min", "max", "mean", "std")}
        arrays[ours] = _raw(golden[stored[name]], config["norm_map"].get(kind, "IDENTITY"), of)[None]
    window = next(iter(arrays.values())).shape[1]
    return Batch(arrays, np.ones((1, window), np.bool_))


def _raw(value: Array, mode: str, of: Mapping[str, Array]) -> Array:
    if mode == "MIN_MAX":
        value = (value.astype(np.float64) + 1) / 2 * (of["max"] - of["min"]) + of["min"]
    elif mode == "MEAN_STD":
        value = value.astype(np.float64) * of["std"] + of["mean"]
    elif mode != "IDENTITY":
        raise ValueError(f"normalisation {mode!r} of k4/* is not known here")
    return value.astype(np.float32)
