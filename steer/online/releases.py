"""`RunReleases`: a run's versions for a server that follows it, verified, and what came of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from steer import registry
from steer.checkpoints import Checkpoint, read_checkpoint, read_version
from steer.engine import Engine
from steer.errors import CheckpointError, ConfigError, SteerError
from steer.online.engine import Mixture, steered
from steer.online.publish import Version, Versions
from steer.online.refused import refuse, refused
from steer.online.settings import read_settings
from steer.online.union import union_version
from steer.server.follow import Release
from steer.server.guard import Outcome
from steer.server.outcomes import Outcomes


class RunReleases:
    """Implements `steer.server.follow.Releases` for the folder of a `steer finetune`."""

    def __init__(self, run: Path, outcomes: Path | None = None, refine: str = "") -> None:
        """outcomes: the episode store to judge by; the run's own unless given. refine: one more refiner for every version.

        Raises `ConfigError` for a folder that holds no run.
        """
        self._run = Path(run)
        self._settings = _started(self._run)
        self._refine = refine
        self._versions = Versions(self._run)
        self._models: dict[int, tuple[str, str]] = {}
        self.store = Path(outcomes or self._settings.get("online") or self._run / "episodes").absolute()
        """Where outcomes are read; it may not be there yet."""
        self._outcomes = Outcomes(self.store)

    @property
    def published(self) -> bool:
        """Is there anything to serve yet?"""
        return (self._run / "current.json").exists()

    def newest(self) -> Release:
        current = self._versions.current()
        return Release(current.version, current.time_s)

    def load(self, number: int) -> Engine:
        """Raises `CheckpointError` for what is missing, changed, not finite, or not what the run published."""
        folder = self._versions.folder(number)
        if not folder.is_dir():
            raise CheckpointError(f"{folder} is missing: it was removed, or the run is being written anew")
        found = {path.name: _sound(path) for path in sorted(folder.iterdir()) if path.is_dir()}
        _check_published(self._versions.current(), number, found)
        return steered(folder, self._mixture, self._refine)

    def earlier(self, number: int) -> Sequence[int]:
        return [there for there in reversed(self._versions.numbers()) if there < number]

    def refused(self) -> Mapping[int, str]:
        return refused(self._run)

    def refuse(self, number: int, why: str) -> None:
        refuse(self._run, number, why)

    def outcomes(self) -> Sequence[Outcome]:
        for number in self._versions.numbers():
            folder = self._versions.folder(number)
            try:
                student, critic = read_version(folder / "policy"), read_version(folder / "critic")
            except CheckpointError:
                continue  # removed meanwhile, or broken: then nobody was ever served by it
            self._models[number] = (union_version(student, self._mixture.base.version), critic)
        return self._outcomes.read({models: number for number, models in self._models.items()})

    @cached_property
    def _mixture(self) -> Mixture:
        config, name = self._settings["config"], self._settings["policy"]
        try:
            base = registry.policy(name)
        except SteerError as error:
            raise ConfigError(
                f"{self._run}: the policy that the run started with cannot be loaded ({error}): its path is relative to "
                "where steer finetune was started, start the server there, too"
            ) from error
        return Mixture(base, config["base_samples"], config["student_samples"])


def _started(run: Path) -> dict[str, Any]:
    """What the run was started with."""
    settings = read_settings(run)
    try:
        for name in ("base_samples", "student_samples"):
            int(settings["config"][name])
        str(settings["policy"])
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{run / 'run.json'} cannot be used ({error!r}): give the folder of a steer finetune"
        ) from error
    return settings


def _sound(path: Path) -> Checkpoint:
    """A model of a version, once its hashes are right and its weights finite."""
    checkpoint = read_checkpoint(path)
    for name, value in checkpoint.weights.items():
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise CheckpointError(f"{path}: weight {name} is not finite: the training diverged")
    return checkpoint


def _check_published(current: Version, number: int, found: Mapping[str, Checkpoint]) -> None:
    """Raise `CheckpointError` unless the newest version's models are those that the run says it published."""
    if current.version != number:
        return
    for name, stated in (("policy", current.policy), ("critic", current.critic), ("edit", current.edit)):
        if stated and name not in found:
            raise CheckpointError(f"version {number} has no {name}: its folder is incomplete")
        if stated and found[name].version != stated:
            raise CheckpointError(
                f"version {number}: its {name} is {found[name].version}, but the run published {stated}: "
                "somebody changed the folder"
            )
