"""Versions: whole checkpoint folders that appear at once, and a pointer to the newest.

    RUN/versions/000007/{policy,critic}   written aside, then renamed; beside them `edit` where edits are learnt
    RUN/current.json                      a `Version` as JSON, replaced atomically

Whoever reads the pointer finds these folders whole, whenever the writer dies.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from steer.errors import CheckpointError
from steer.files import fsync_path, fsync_tree, replace_folder
from steer.serial import from_json, to_json

# Far more than an actor that is slow to change needs: `steer curve` measures versions long after they came out.
KEPT = 100


@dataclass(frozen=True)
class Version:
    """Models that were published together. policy, critic, edit: their checkpoints' versions; time_s: Unix seconds."""

    version: int
    policy: str = ""
    critic: str = ""
    episodes: int = 0
    control_steps: int = 0
    critic_updates: int = 0
    policy_updates: int = 0
    time_s: float = 0.0
    why: str = ""
    edit: str = ""


class Versions:
    """The versions of one run."""

    def __init__(self, run: Path) -> None:
        self._folder = run / "versions"
        self._pointer = run / "current.json"

    def numbers(self) -> list[int]:
        """Versions whose folders are there, rising. What a person left beside them, such as a copy, is none."""
        names = (path.name for path in self._folder.glob("*") if path.name.isdecimal())
        return sorted(int(name) for name in names if name == self.folder(int(name)).name)

    def folder(self, version: int) -> Path:
        """Where a version's `policy`, `critic` and, if there is one, `edit` lie."""
        return self._folder / f"{version:06d}"

    def current(self) -> Version:
        """The newest version. Raises `CheckpointError` when there is none yet, or the pointer cannot be read."""
        try:
            content = json.loads(self._pointer.read_text())
        except FileNotFoundError as error:
            raise CheckpointError(f"{self._pointer} is missing: nothing was published by this run yet") from error
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{self._pointer} cannot be read ({error}): resume the learner, it writes it anew"
            ) from error
        return from_json(Version, content, str(self._pointer))

    def publish(
        self,
        about: Version,
        save_policy: Callable[[Path], str],
        save_critic: Callable[[Path], str],
        save_edit: Callable[[Path], str] | None = None,
    ) -> Version:
        """Write the models, then move the pointer; returns `about` with their versions filled in.

        A version that is there already (its publisher died before it said so) is replaced.
        """
        target = self.folder(about.version)
        aside = self._folder / f".{about.version:06d}.{os.getpid()}"
        self._sweep()
        try:
            aside.mkdir(parents=True)
            about = replace(about, policy=save_policy(aside / "policy"), critic=save_critic(aside / "critic"))
            if save_edit is not None:
                about = replace(about, edit=save_edit(aside / "edit"))
            fsync_tree(aside)
            replace_folder(aside, target)
            self._point(about)
        except OSError as error:
            raise CheckpointError(f"{target}: cannot publish ({error}): free space, then resume") from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        self._prune(about.version)
        return about

    def _point(self, about: Version) -> None:
        aside = self._folder / f".current.{os.getpid()}"
        aside.write_text(json.dumps(to_json(about), indent=1))
        fsync_path(aside)
        os.replace(aside, self._pointer)
        fsync_path(self._pointer.parent)

    def _sweep(self) -> None:
        """Remove what a killed publisher left; the run's lock is held, so nobody else is writing here."""
        for leftover in self._folder.glob(".*"):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)

    def _prune(self, newest: int) -> None:
        for number in self.numbers():
            if 0 < number <= newest - KEPT:
                shutil.rmtree(self.folder(number), ignore_errors=True)
