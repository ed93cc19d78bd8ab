"""The folder of one training run.

OUT/                     once finished, the checkpoint folder that serving reads
OUT/training/step-N/     the state that resumes the run (`steer.training.state`); serving ignores it
OUT/logs/                TensorBoard
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from steer.errors import CheckpointError, ConfigError
from steer.files import fsync_path
from steer.training.state import latest_step

# The file that makes a folder a checkpoint; it is the last to arrive and the first to go.
_SEAL = "manifest.json"
_OURS = ("config.json", "weights.safetensors", "README.md", "documents", "training", "logs")


class RunFolder:
    """Where a run lives, and whether it may."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.training = self.path / "training"
        self.logs = self.path / "logs"

    @property
    def finished(self) -> bool:
        return (self.path / _SEAL).exists()

    def check(self, resume: bool, overwrite: bool) -> None:
        """Raise `ConfigError` unless a run may start or go on here; nothing is ever lost without being told to."""
        if resume and overwrite:
            raise ConfigError("resume and overwrite exclude each other: give one")
        step = latest_step(self.training)
        if resume and step is None:
            raise ConfigError(f"{self.path}: nothing to resume here: start without --resume")
        if resume or overwrite:
            return
        if self.finished:
            raise ConfigError(f"{self.path}: holds a finished run: choose another folder, or --overwrite it")
        if step is not None:
            raise ConfigError(f"{self.path}: holds a run stopped at step {step}: --resume it, or --overwrite it")
        if self.path.exists() and not (self.path.is_dir() and set(os.listdir(self.path)) <= set(_OURS)):
            raise ConfigError(f"{self.path}: holds something else: choose an empty or a new folder")

    def claim(self, resume: bool, overwrite: bool) -> None:
        """Make the folder ready for a new run, or for going on."""
        self.check(resume, overwrite)
        if not resume:
            if overwrite:
                self._clear()
            self.training.mkdir(parents=True, exist_ok=True)

    def publish(self, save: Callable[[Path], str]) -> str:
        """Have `save` write the checkpoint aside, then move it in; readers see no checkpoint until it is whole."""
        aside = self.path.parent / f".{self.path.name}.{uuid.uuid4().hex[:8]}"
        try:
            version = save(aside)
            (self.path / _SEAL).unlink(missing_ok=True)
            shutil.rmtree(self.path / "documents", ignore_errors=True)
            for item in sorted(aside.iterdir(), key=lambda item: item.name == _SEAL):
                os.replace(item, self.path / item.name)
            fsync_path(self.path)
        except OSError as error:
            raise CheckpointError(
                f"{self.path}: cannot publish the checkpoint ({error}): free space, then resume"
            ) from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return version

    def _clear(self) -> None:
        """Remove what a run writes, and nothing else."""
        for name in (_SEAL, *_OURS):
            item = self.path / name
            if item.is_dir():
                shutil.rmtree(item)
            else:
                item.unlink(missing_ok=True)
