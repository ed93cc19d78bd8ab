"""`steer inspect PLACE`: what a checkpoint, an episode store or an environment says of itself."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

from steer.action import ActionSpec
from steer.checkpoints import Checkpoint, read_checkpoint
from steer.data.replay_buffer import is_replay_buffer
from steer.data.store import EpisodeStore
from steer.environment import Environment
from steer.errors import CheckpointError, ConfigError
from steer.model_name import ModelName
from steer.observation import ObservationSpec
from steer.robot import RobotSpec, write_robot
from steer.serial import from_json, to_json


@dataclass(frozen=True)
class Inspect:
    """Print kind, version, specs, configuration and verdict of a checkpoint; or the content of an episode store."""

    place: Annotated[str, tyro.conf.Positional] = ""
    """A checkpoint folder (or its name kind:place), or an episode store."""
    env: str = ""
    """A gymnasium environment instead: print the robot that its spaces describe."""
    draft: Path | None = None
    """With --env: write that description to this file, to be completed by hand ("unknown" fields)."""
    json: bool = False
    """Print JSON instead of tables."""

    def run(self) -> None:
        console = Console(soft_wrap=True)
        if self.env:
            self._environment(console)
        elif not self.place:
            raise ConfigError("nothing to inspect: give a checkpoint folder, an episode store, or --env ID")
        elif (Path(self.place) / "store.json").exists() or is_replay_buffer(Path(self.place)):
            _store(console, EpisodeStore.open(Path(self.place)), self.json)
        else:
            _checkpoint(console, read_checkpoint(_folder(self.place)), self.json)

    def _environment(self, console: Console) -> None:
        environment = Environment(self.env)
        robot = environment.robot
        environment.close()
        if self.draft is not None:
            write_robot(self.draft, robot)
            console.print(f"wrote {self.draft}: state what is 'unknown', then give it as --robot-spec {self.draft}")
        elif self.json:
            print(json.dumps(to_json(robot)))
        else:
            _robot(console, robot)


def _folder(place: str) -> Path:
    path = Path(place)
    if path.exists():
        return path
    named = Path(ModelName.parse(place).place)
    if not named.exists():
        raise CheckpointError(f"{named}: no such folder: give a checkpoint folder or an episode store")
    return named


def _checkpoint(console: Console, checkpoint: Checkpoint, as_json: bool) -> None:
    if as_json:
        fields = ("kind", "version", "config", "spec", "documents")
        print(
            json.dumps(
                {name: getattr(checkpoint, name) for name in fields} | {"transforms": checkpoint.transforms.to_json()}
            )
        )
        return
    numbers = sum(int(weight.size) for weight in checkpoint.weights.values())
    console.print(
        f"[bold]{checkpoint.path}[/]  kind {checkpoint.kind}, version {checkpoint.version}, {numbers:,} parameters"
    )
    spec = dict(checkpoint.spec)
    _action(console, from_json(ActionSpec, spec.pop("action"), "action"))
    _observation(console, from_json(ObservationSpec, spec.pop("observation"), "observation"))
    console.print(_pairs("spec", spec))
    console.print(_pairs("configuration", checkpoint.config))
    console.print("transforms: " + (" > ".join(str(t["name"]) for t in checkpoint.transforms.to_json()) or "none"))
    for name, document in checkpoint.documents.items():
        console.print(_pairs(name, document))


def _store(console: Console, store: EpisodeStore, as_json: bool) -> None:
    records = store.records()
    outcome = Counter({True: "succeeded", False: "failed", None: "unlabelled"}[record.success] for record in records)
    steps = sum(record.length for record in records)
    summary: dict[str, Any] = {"episodes": len(records), "steps": steps, **outcome}
    summary["sources"] = dict(Counter(record.source for record in records))
    if as_json:
        print(json.dumps(summary | {"robot": to_json(store.robot)}))
        return
    console.print(_pairs("episode store", summary))
    _robot(console, store.robot)


def _robot(console: Console, robot: RobotSpec) -> None:
    console.print(f"[bold]robot {robot.name}[/]  hold: {robot.hold}, keeps {list(robot.keep) or 'nothing'}")
    _action(console, robot.action)
    _observation(console, robot.observation)


def _action(console: Console, action: ActionSpec) -> None:
    table = Table(
        title=f"actions: {action.kind}, frame {action.frame}, reference {action.reference}, rotation {action.rotation}, "
        f"gripper {action.gripper}, {action.rate_hz:g} Hz",
        title_justify="left",
    )
    for column in ("axis", "unit", "low", "high"):
        table.add_column(column)
    for axis in action.axes:
        table.add_row(axis.name, axis.unit, f"{axis.low:g}", f"{axis.high:g}")
    console.print(table)


def _observation(console: Console, observation: ObservationSpec) -> None:
    table = Table(title=f"observations: {observation.window} frame(s) of history", title_justify="left")
    for column in ("key", "dtype", "shape", "entries"):
        table.add_column(column)
    for array in observation.arrays:
        table.add_row(array.name, array.dtype, str(list(array.shape)), " ".join(array.names))
    console.print(table)


def _pairs(title: str, content: Any) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    for name, value in content.items():
        table.add_row(str(name), value if isinstance(value, str) else json.dumps(value))
    return table
