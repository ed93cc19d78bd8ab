"""The folder of one fine-tuning run, and the lock that keeps a second learner out.

RUN/run.json             what the run was started with
RUN/learner.lock         held by the living learner
RUN/episodes/            the online episodes, unless they go elsewhere
RUN/proposals/           candidates at online states, one file per round
RUN/training/step-N/     the state that resumes the run
RUN/versions/, current.json   what was published (`steer.online.publish`)
RUN/refused.json         what is not to be served again (`steer.online.refused`)
RUN/rounds.jsonl, logs/  what happened, one line per round, and TensorBoard
RUN/curve/               what its versions are worth, once measured (`steer.online.curve`)
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog

from steer.errors import ConfigError
from steer.files import write_text
from steer.online.settings import read_settings
from steer.training.state import latest_step

_log = structlog.get_logger(__name__)
_OURS = (
    *("run.json", "learner.lock", "episodes", "proposals", "training", "versions"),
    *("current.json", "refused.json", "rounds.jsonl", "logs", "curve"),
)
# What is being written; a kill may leave it.
_ASIDE = tuple(f".{name}." for name in _OURS)


class OnlineFolder:
    """Where a run lives, and whether it may."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.episodes = self.path / "episodes"
        self.proposals = self.path / "proposals"
        self.training = self.path / "training"
        self.logs = self.path / "logs"
        self.rounds = self.path / "rounds.jsonl"
        self._document = self.path / "run.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run. Raises `ConfigError` while another learner does; the kernel lets go when a process dies."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path / "learner.lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise ConfigError(
                f"{self.path}: cannot be the folder of a run ({error.strerror}): choose one that can be written"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise ConfigError(
                f"{self.path}: another learner is at work on this run: wait for it, stop it, or choose another folder"
            ) from error
        try:
            yield
        finally:
            os.close(descriptor)

    def claim(self, settings: Mapping[str, Any], resume: bool, overwrite: bool) -> bool:
        """Make the folder ready; True where there is a state to go on from. Call it with the lock held, and last of all that may
        fail: overwrite removes the earlier run, with the episodes in `episodes` whoever recorded them.

        Raises `ConfigError` where `check` does.
        """
        self.check(settings, resume, overwrite)
        if overwrite:
            self._clear()
        if resume:
            return latest_step(self.training) is not None
        try:
            write_text(self._document, json.dumps(settings, indent=1))
        except OSError as error:
            raise ConfigError(
                f"{self._document}: cannot be written ({error.strerror}): free space and start again"
            ) from error
        return False

    def check(self, settings: Mapping[str, Any], resume: bool, overwrite: bool) -> None:
        """May such a run be here? Changes nothing.

        Raises `ConfigError` when the folder holds something else, or was started with other settings.
        """
        if resume and overwrite:
            raise ConfigError("resume and overwrite exclude each other: give one")
        surplus = sorted(name for name in os.listdir(self.path) if name not in _OURS and not name.startswith(_ASIDE))
        if surplus:
            raise ConfigError(f"{self.path}: holds something else ({surplus[0]}): choose an empty or a new folder")
        there = self._document.exists()
        if resume and not there:
            raise ConfigError(f"{self.path}: nothing to resume here: start without --resume")
        if resume:
            _check_same(read_settings(self.path), settings, self.path)
        elif there and not overwrite:
            raise ConfigError(f"{self.path}: holds a run: --resume it, or --overwrite it")

    def _clear(self) -> None:
        """Remove what a run writes, and nothing else; the lock is being held."""
        for name in _OURS:
            item = self.path / name
            if item.is_dir():
                shutil.rmtree(item)
            elif name != "learner.lock":
                item.unlink(missing_ok=True)


def _check_same(was: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    """Raise `ConfigError` naming every setting that differs. One that the run's version did not have yet may be anything."""
    had, has = dict(_flat(was)), dict(_flat(now))
    told = [f"{name} was {had[name]!r}, now {has.get(name)!r}" for name in sorted(had) if had[name] != has.get(name)]
    if told:
        raise ConfigError(f"{path}: this run was started with other settings ({'; '.join(told)}): resume with its own")
    for name in sorted(set(has) - set(had)):
        _log.warning("the run is older than a setting", setting=name, goes_on_with=has[name])


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """("config.utd", 1.0), ...: the settings within settings by their paths."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
