"""Fine-tuning: what each method makes of a policy, over online episodes, and what a shifted world costs.

    python -m benchmarks.finetune --demos runs/demo runs/demo-1 runs/demo-2 [--tokens POLICY] [--only calql+success ...] [--json]

Each method starts from the first demo's policy and critic, the default one from every demo's. A method is flags of `steer
finetune`; its versions are measured by `steer curve` on starts that neither training has seen. What is finished is kept, so a
run that was stopped goes on. A token transformer is improved in the demo policy's place, such as the one that
`benchmarks.families` trains.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from benchmarks.cells import Cells
from benchmarks.keep import keep

DEFAULT = "calql+success"
METHODS: Mapping[str, Sequence[object]] = {
    "calql+success": ("--preset", "calql", "--improve", "success"),
    "calql+pa-rl": ("--preset", "calql", "--improve", "pa-rl"),
    "calql+both": ("--preset", "calql", "--improve", "both"),
    "calql+edit": ("--preset", "calql", "--improve", "edit"),
    "calql+none": ("--preset", "calql", "--improve", "none"),
    "wsrl+success": ("--preset", "wsrl", "--improve", "success"),
    "rlpd+edit": ("--preset", "rlpd", "--improve", "edit"),
}
TOKENS = "tokens+pa-rl"
# Worlds that the offline episodes never saw: options of the environment.
SHIFTS: Mapping[str, Mapping[str, object]] = {
    "cube": {"cube_mass_kg": 0.4, "cube_friction": 0.35},
    "goals": {"goal_box_m": [[0.60, -0.20], [0.66, 0.20]]},
    "gripper": {"gripper_offset_m": [0.0, 0.018, 0.0]},
}


@dataclass(frozen=True)
class Arguments:
    """Fine-tune by every method and measure the versions."""

    demos: tuple[Path, ...] = (Path("runs/demo"),)
    """Folders of `steer demo`, each with episodes, policy and critic; the default method starts from each of them."""
    tokens: Path | None = None
    """A token transformer for the same task, to be improved by pa-rl."""
    work: Path = Path("runs/benchmarks/finetune")
    """Where runs and finished cells are kept."""
    out: Path = Path("benchmarks/results/finetune.json")
    """Where the table is kept."""
    robot_minutes: float = 19.0
    """Robot time of a run: control steps at the robot's rate."""
    episodes: int = 900
    """A run ends after so many episodes even if the robot has not worked so long."""
    starts: int = 200
    """Held-out starts of each point."""
    last_starts: int = 400
    """Of the first and the last point."""
    token_starts: int = 100
    """Of the token transformer's points; its decisions take far longer than the others'."""
    only: tuple[str, ...] = ()
    """Methods and shifts to make; all unless given."""
    json: bool = False
    """Print only the JSON object."""

    def run(self) -> None:
        cells = Cells(self.work, Console(stderr=True, quiet=self.json))
        for name in self._chosen([*METHODS, *([TOKENS] if self.tokens else []), *SHIFTS]):
            made = self._rows(name, cells)
            # Read only now: another process may have added its own meanwhile.
            kept = json.loads(self.out.read_text()) if self.out.exists() else {}
            shift = kept.get("shift", {}) | made.pop("shift", {})
            keep(self.out, kept | {"default": DEFAULT} | made | ({"shift": shift} if shift else {}))
        print(self.out.read_text())

    def _chosen(self, names: Sequence[str]) -> list[str]:
        unknown = sorted(set(self.only) - set(names))
        if unknown:
            raise SystemExit(f"unknown: {unknown}; there are {list(names)}")
        return [name for name in names if not self.only or name in self.only]

    def _rows(self, name: str, cells: Cells) -> dict[str, Any]:
        """What this method or shift adds to the table."""
        if name in SHIFTS:
            options = [
                word for key, value in SHIFTS[name].items() for word in ("--env-option", f"{key}={json.dumps(value)}")
            ]
            flags = [*METHODS[DEFAULT], *options, "--episodes", 300, "--robot-minutes", 0]
            return {"shift": {name: self._curve(f"shift-{name}", self.demos[0], flags, (0, 75, 300), cells)}}
        points = (0, 75, 150, 300)
        if name == TOKENS:
            # Its updates and decisions take by far the longest, and what they are worth shows early.
            flags = [*METHODS["calql+pa-rl"], "--policy", self.tokens, "--episodes", 150, "--robot-minutes", 0]
            starts = (self.token_starts, self.token_starts)
            return {name: self._curve(name, self.demos[0], flags, (0, 150), cells, starts)}
        if name != DEFAULT:
            return {name: self._curve(name, self.demos[0], METHODS[name], points, cells)}
        curves = [
            self._curve(f"{name}-{number}", demo, [*METHODS[name], "--seed", number], points, cells)
            for number, demo in enumerate(self.demos)
        ]
        return {name: curves[0], "seeds": curves}

    def _curve(
        self,
        name: str,
        demo: Path,
        flags: Sequence[object],
        points: Sequence[int],
        cells: Cells,
        starts: tuple[int, int] | None = None,
    ) -> dict[str, Any]:
        """Episodes -> success; see `steer.cli.curve.summary`. flags: of `steer finetune`; the last of two holds. starts: of a
        point, and of the first and the last one."""
        run = self.work / name
        if not (run / "curve" / "curve.json").exists():
            models = ("--policy", demo / "policy", "--critic", demo / "critic", "--offline", demo / "episodes")
            limits = ("--episodes", self.episodes, "--robot-minutes", self.robot_minutes)
            going_on = ("--resume",) if (run / "run.json").exists() else ()
            cells.steer(f"{name}-finetune", ["finetune", *models, *limits, "--out", run, *flags, *going_on])
        # All methods start from the same models, whose episodes are played once.
        each, last = starts or (self.starts, self.last_starts)
        measured = ("--episodes", each, "--last-episodes", last, "--played", self.work / "played")
        cells.steer(f"{name}-curve", ["curve", run, "--at", *points, *measured])
        lines = (self.work / f"{name}-curve.log").read_text().splitlines()
        curve: dict[str, Any] = json.loads(next(line for line in reversed(lines) if line.startswith("{")))
        return curve


if __name__ == "__main__":
    tyro.cli(Arguments).run()
