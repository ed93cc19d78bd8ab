"""`steer convert SOURCE DEST`: other people's episodes into an episode store, and checkpoints into folders of ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NoReturn

import tyro
from rich.console import Console
from rich.progress import Progress

from steer import registry
from steer.data.convert import Conversion, convert, draft
from steer.draft import unknown_fields
from steer.errors import ConfigError
from steer.model_name import ModelName
from steer.progress import ProgressBar
from steer.robot import read_robot, write_robot


@dataclass(frozen=True)
class Convert:
    """Read a Diffusion Policy replay buffer (zarr v2, folder or .zarr.zip), or a folder of .npz episodes, one per file:
    observation.<key> [N+1, ...] or [N, ...], action [N, A], and optionally reward, success, terminated, truncated,
    instruction, step.<name>. What the data mean stands in a robot sidecar, drafted when it is missing.

    A model's name (vgps:PATH?bounds=bridge&embeddings=TABLE) makes of a published checkpoint a folder of ours, of what serving
    needs and nothing else."""

    source: Annotated[str, tyro.conf.Positional]
    """Replay buffer, or folder of .npz files; or a model's name."""
    dest: Annotated[Path, tyro.conf.Positional]
    """Episode store, or checkpoint folder, to create."""
    robot: Path | None = None
    """Robot sidecar (a robot spec as JSON); DEST.robot.json unless given."""
    rate_hz: float | None = None
    """Control rate of the recording; needed once, for the draft of the sidecar."""
    skip_broken: bool = False
    """Leave out episodes that do not fit, instead of stopping."""

    def run(self) -> None:
        console = Console(soft_wrap=True)
        source = Path(self.source)
        if not source.exists():
            _model(console, self.source, self.dest)
            return
        sidecar = self.robot or self.dest.with_name(f"{self.dest.name}.robot.json")
        with ProgressBar(console) as bar:
            if not sidecar.exists():
                self._draft(source, sidecar, bar)
            robot = read_robot(sidecar)
            done = convert(source, self.dest, robot, self.skip_broken, _report(bar, "convert"))
        _print(console, self.dest, done)

    def _draft(self, source: Path, sidecar: Path, bar: Progress) -> NoReturn:
        """Write a draft and stop: a person has to say what the numbers mean."""
        if self.rate_hz is None:
            raise ConfigError(
                f"there is no robot sidecar {sidecar}: give --rate-hz, the recording's rate, to have it drafted"
            )
        robot = draft(source, self.rate_hz, _report(bar, "draft"))
        write_robot(sidecar, robot)
        raise ConfigError(
            f"there was no robot sidecar, a draft is in {sidecar}: state what is unknown ({', '.join(unknown_fields(robot))}), "
            "check the bounds (they are those of the data), and run this command again"
        )


def _model(console: Console, source: str, dest: Path) -> None:
    """A published checkpoint, by its name, into one of our folders."""
    if ":" not in source:
        raise ConfigError(f"{source}: no such file or folder to convert: check the path")
    if dest.exists():
        raise ConfigError(f"{dest} exists: give a new place for the checkpoint")
    name = ModelName.parse(source)
    make = registry.family_of(name.kind).convert
    if make is None:
        raise ConfigError(
            f"{name}: checkpoints of kind {name.kind!r} are used as they are, there is nothing to convert them to"
        )
    version = make(name, dest)
    size = sum(file.stat().st_size for file in dest.rglob("*") if file.is_file())
    console.print(f"{dest}, version {version}, {size / 1e6:.1f} MB", markup=False)


def _report(bar: Progress, description: str) -> Callable[[int, int], None]:
    task = bar.add_task(description, total=None)
    return lambda done, total: bar.update(task, completed=done, total=total)


def _print(console: Console, dest: Path, done: Conversion) -> None:
    for problem in done.left_out:
        console.print(f"left out: {problem}", style="yellow", markup=False)
    console.print(f"{done.episodes} episodes, {done.steps} steps in {dest}", markup=False)
    if done.unknown:
        console.print(
            f"still unknown, and matching no other spec until stated in {dest}/store.json: {', '.join(done.unknown)}",
            markup=False,
        )
