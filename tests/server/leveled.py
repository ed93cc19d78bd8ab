"""Runs whose versions can be told by their actions: policy and critic of version n know one number, its level.

The policy proposes its level in every number of a chunk, and the critic likes chunks of its own level best. The frozen policy
proposes `BASE`. So an answer of a policy and a critic that belong together is the level of their version, and nothing else is.
"""

from __future__ import annotations

import gc
import json
import os
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from steer.checkpoints import Checkpoint, read_checkpoint, write_checkpoint
from steer.critic import CriticSpec
from steer.model_name import ModelName
from steer.observation import Batch, ObservationSpec
from steer.online.publish import Version, Versions
from steer.policy import PolicySpec
from steer.registry import Family
from steer.serial import from_json
from steer.spec import Array
from steer.transforms import Pipeline
from tests.fakes import ACTION, STATE, H

KIND = "level"
BASE = 0.09
SEEN = ObservationSpec((STATE,))
POLICY_SPEC = PolicySpec(SEEN, ACTION, H)
CRITIC_SPEC = CriticSpec(SEEN, ACTION, (H,), members=2, gamma=0.9)
Spoil: TypeAlias = Callable[[Path], object]
# Some weight, so that writing and reading one takes a while.
_BALLAST = 100_000
_critics: weakref.WeakSet[LevelCritic] = weakref.WeakSet()


def level(version: int) -> float:
    """What a version proposes; every version another number."""
    return round(0.001 * version, 3)


class LevelPolicy:
    """See the module."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.spec = from_json(PolicySpec, checkpoint.spec, "spec")
        self.version = checkpoint.version
        self._level = float(checkpoint.weights["level"][0])

    def encode(self, observations: Batch) -> int:
        return len(observations)

    def sample(
        self, context: int, num_samples: int, seeds: Array, temperature: float = 1.0, committed: Array | None = None
    ) -> Array:
        return np.full((context, num_samples, self.spec.horizon, 3), self._level, np.float32)


class LevelCritic:
    """See the module; says how many of its kind are in memory whenever one is made."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.spec = from_json(CriticSpec, checkpoint.spec, "spec")
        self.version = checkpoint.version
        self._level = float(checkpoint.weights["level"][0])
        _critics.add(self)
        gc.collect()
        print(f"{len(_critics)} critics in memory", flush=True)

    def encode(self, observations: Batch) -> None:
        return None

    def score(self, context: None, actions: Array) -> Array:
        score = -np.abs(actions - self._level).sum(axis=(2, 3))
        if self._level < 0:
            score = score / 0.0
        return np.stack([score, score]).astype(np.float32)


def _load_policy(name: ModelName) -> LevelPolicy:
    return LevelPolicy(read_checkpoint(Path(name.place)))


def _load_critic(name: ModelName) -> LevelCritic:
    gate = Path(os.environ.get("LEVEL_GATE", ""))
    if gate.is_file():
        print("loading", flush=True)
    while gate.is_file():
        time.sleep(0.01)
    return LevelCritic(read_checkpoint(Path(name.place)))


POLICY = Family(KIND, "", _load_policy)
CRITIC = Family(KIND, "", _load_critic)


def make_plugin(folder: Path) -> Path:
    """A folder that, on the path, looks like an installed distribution that brings the kind."""
    info = folder / "level_plugin-1.0.dist-info"
    info.mkdir()
    (folder / "level_plugin.py").write_text("from tests.server.leveled import CRITIC, POLICY\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: level-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[steer.policies]\nlevel = level_plugin:POLICY\n[steer.critics]\nlevel = level_plugin:CRITIC\n"
    )
    return folder


def save_model(path: Path, value: float, spec: PolicySpec | CriticSpec) -> str:
    """A policy's or a critic's folder, by its spec; returns its version."""
    weights = {"level": np.array([value], np.float32), "ballast": np.full(_BALLAST, value, np.float32)}
    return write_checkpoint(path, kind=KIND, config={}, spec=spec, transforms=Pipeline(()), weights=weights, card="")


class LevelRun:
    """The folder of a run, and its learner."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.versions = Versions(folder)
        self.numbers: dict[str, int] = {}
        """Version of a policy as decisions carry it -> number of the version."""
        self.critics: dict[str, int] = {}
        folder.mkdir(exist_ok=True)
        base = folder.with_name(f"{folder.name}-base")
        self._base = save_model(base, BASE, POLICY_SPEC)
        settings = {"policy": str(base), "critic": "", "config": {"base_samples": 1, "student_samples": 1}}
        (folder / "run.json").write_text(json.dumps(settings))

    def publish(
        self,
        number: int,
        spoil_policy: Spoil = lambda path: None,
        spoil_critic: Spoil = lambda path: None,
        **changes: Any,
    ) -> Version:
        """Publish a version. spoil_*: what happens to its folders before. changes: `value`, `policy_spec`, `critic_value`."""
        value = changes.get("value", level(number))
        about = self.versions.publish(
            Version(number, time_s=time.time()),
            spoiled(lambda path: save_model(path, value, changes.get("policy_spec", POLICY_SPEC)), spoil_policy),
            spoiled(lambda path: save_model(path, changes.get("critic_value", value), CRITIC_SPEC), spoil_critic),
        )
        self.numbers[f"{about.policy}+{self._base}"] = number
        self.critics[about.critic] = number
        return about


def spoiled(save: Callable[[Path], str], spoil: Callable[[Path], object]) -> Callable[[Path], str]:
    """A save after which something happens to the folder."""

    def both(path: Path) -> str:
        version = save(path)
        spoil(path)
        return version

    return both
