"""`steer inspect PLACE`: what a checkpoint (ours or a published one), an episode store, a run or an environment says of itself."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from steer import registry
from steer.action import ActionSpec
from steer.checkpoints import Checkpoint, read_checkpoint
from steer.data.replay_buffer import is_replay_buffer
from steer.data.store import EpisodeStore
from steer.description import Description
from steer.environment import Environment
from steer.errors import CheckpointError, ConfigError
from steer.files import write_text
from steer.model_name import ModelName
from steer.observation import ObservationSpec
from steer.online.progress import read_rounds
from steer.online.publish import Versions
from steer.online.refused import playable, refused
from steer.online.settings import read_settings
from steer.robot import RobotSpec, write_robot
from steer.serial import from_json, to_json


@dataclass(frozen=True)
class Inspect:
    """Print what a checkpoint says of itself, and what it leaves open; or the content of an episode store; or how far a run is."""

    place: Annotated[str, tyro.conf.Positional] = ""
    """A checkpoint folder, a model's name (openvla:PATH?unnorm_key=bridge_orig), an episode store, or a run of steer finetune."""
    env: str = ""
    """A gymnasium environment instead: print the robot that its spaces describe."""
    draft: Path | None = None
    """Write what a person has to complete ("unknown" fields) to this file: with --env the robot, else a model's sidecar."""
    json: bool = False
    """Print JSON instead of tables."""

    def run(self) -> None:
        console = Console(soft_wrap=True)
        if self.env:
            self._environment(console)
        elif not self.place:
            raise ConfigError("nothing to inspect: give a checkpoint folder, an episode store, a run, or --env ID")
        elif (Path(self.place) / "store.json").exists() or is_replay_buffer(Path(self.place)):
            _store(console, EpisodeStore.open(Path(self.place)), self.json)
        elif (Path(self.place) / "run.json").exists():
            _run(console, Path(self.place), self.json)
        else:
            self._model(console)

    def _model(self, console: Console) -> None:
        """One of our checkpoint folders, or whatever another kind can tell."""
        name = ModelName.parse(self.place)
        if not (Path(name.place) / "manifest.json").exists():
            _published(console, name, self.json, self.draft)
        elif self.draft is not None:
            raise ConfigError(f"{name.place}: one of our own folders leaves nothing open: leave --draft out")
        else:
            _checkpoint(console, read_checkpoint(Path(name.place)), self.json)

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


def _published(console: Console, name: ModelName, as_json: bool, draft: Path | None) -> None:
    described = _described(name)
    if draft is not None:
        _write_draft(console, name, described, draft)
        return
    left = {f"?{option}=": list(values) for option, values in described.choices.items()}
    if as_json:
        parts = {"observation": described.observation, "action": described.action}
        specs = {key: to_json(part) for key, part in parts.items() if part is not None}
        print(
            json.dumps({"kind": name.kind, **described.facts, **specs, "choices": left, "unknown": described.unknown})
        )
        return
    console.print(f"[bold]{name.place}[/]  kind {name.kind}")
    if described.action is not None:
        _action(console, described.action)
    if described.observation is not None:
        _observation(console, described.observation)
    console.print(_pairs("facts", described.facts))
    if left:
        console.print(_pairs("to be chosen in the model's name", left))
    if described.unknown and described.sidecar is not None:
        console.print(
            f"unknown, and matching no robot until stated: {', '.join(described.unknown)}; "
            f"--draft FILE writes what to complete, read from {described.sidecar.place}",
            markup=False,
        )


def _described(name: ModelName) -> Description:
    """By the family itself; a policy behind a network is asked."""
    family = registry.family_of(name.kind)
    if family.describe is not None:
        return family.describe(name)
    if family.trainable is not None:
        raise CheckpointError(
            f"{name.place}: not a checkpoint folder of kind {name.kind!r} (no manifest.json): check the path"
        )
    spec = family.load(name).spec
    facts = {key: value for key, value in to_json(spec).items() if key not in ("observation", "action")}
    return Description(facts, spec.observation, spec.action)


def _write_draft(console: Console, name: ModelName, described: Description, file: Path) -> None:
    if described.sidecar is None:
        options = "&".join(f"{option}={values[0]}" for option, values in described.choices.items())
        why = f"choose first, such as {name}?{options}" if options else "it leaves nothing open"
        raise ConfigError(f"{name}: no sidecar can be drafted: {why}")
    try:
        write_text(file, json.dumps(to_json(described.sidecar.content), indent=1) + "\n")
    except OSError as error:
        raise ConfigError(f"cannot write {file} ({error.strerror}): give another place") from error
    console.print(
        f"wrote {file}: state what is unknown ({', '.join(described.unknown) or 'nothing'}) and check the bounds; "
        f"it is read from {described.sidecar.place}",
        markup=False,
    )


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
    if "action" in spec:  # a success classifier looks at observations alone
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


def _run(console: Console, run: Path, as_json: bool) -> None:
    """How a run of `steer finetune` was started, how far it is, and which version is served."""
    settings, rounds, unwanted = read_settings(run), read_rounds(run / "rounds.jsonl"), refused(run)
    numbers = Versions(run).numbers()
    served = playable(run, numbers[-1]) if numbers else None
    if as_json:
        print(json.dumps({"settings": settings, "rounds": rounds, "refused": unwanted, "served": served}))
        return
    console.print(_pairs(f"run {run}", {name: value for name, value in settings.items() if name != "config"}))
    table = Table(title="versions", title_justify="left")
    for column in ("version", "episodes", "robot min", "success", "last 50", "clock min", ""):
        table.add_column(column, justify="right" if column else "left")
    for told in rounds:
        number = told["version"]
        figures = (told["robot_minutes"], told["success"], told["rolling_success"], told["seconds"] / 60)
        shown = [f"{value:.{digits}f}" for value, digits in zip(figures, (1, 2, 2, 1), strict=True)]
        note = "refused" if number in unwanted else "served" if number == served else ""
        table.add_row(str(number), str(told["episodes"]), *shown, note)
    console.print(table)
    for number, why in unwanted.items():
        console.print(f"version {number} is refused: {why}", markup=False)
    if served == 0:
        console.print("served: version 0, the models that the run started with")


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
        table.add_row(str(name), escape(_shown(value)))
    return table


def _shown(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return value if isinstance(value, str) else json.dumps(value)
