"""What in the recipe does the work: K, members, heads, losses, prefix, inputs, refinement, controls, and the share of an oracle.

    python -m benchmarks.steering --data runs/demo/episodes --policy runs/demo/policy [--json]

Every variant plays the same initial states at the same noise scale and is one cell; a cell that is done is kept in `--work` and not
made again, so a run that was stopped goes on. The last line is one JSON object, which `benchmarks/results/steering.json` keeps.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from benchmarks.keep import keep
from benchmarks.oracle import OracleSettings, oracle_share
from steer.evaluation.rollout import RolloutSettings
from steer.evaluation.runner import Job, Runner
from steer.evaluation.setup import Setup
from steer.evaluation.statistics import paired_difference, wilson
from steer.parallel import cores
from steer.progress import ProgressBar
from steer.selection import Selection

ENVIRONMENT = "steer/PickPlace-v0"

# What differs from the recipe (two members, MSE, Cal-QL, executed prefix, reached poses): flags of `steer train critic`.
CRITICS: Mapping[str, Sequence[str]] = {
    "recipe": (),
    "members_1": ("--members", "1"),
    "members_5": ("--members", "5"),
    "hl_gauss": ("--head", "hl_gauss"),
    "td": ("--algorithm", "td"),
    "cql": ("--algorithm", "cql"),
    "mc": ("--algorithm", "mc"),
    "first_action": ("--scores", "first_action"),
    "raw": ("--features", "raw"),
    "shuffled": ("--outcomes", "permuted"),
}


@dataclass(frozen=True)
class Cell:
    """One variant: its table and name, the critic, and how it is played."""

    table: str
    variant: str
    critic: str = "recipe"
    samples: int = 8
    choose: str = "argmax"
    refine: str = ""

    @property
    def name(self) -> str:
        return f"{self.table}-{self.variant}"


CELLS = (
    *(Cell("k", str(k), samples=k) for k in (1, 4, 8, 16, 32, 64)),
    Cell("members", "1", "members_1"),
    Cell("members", "2"),
    Cell("members", "5", "members_5"),
    Cell("heads", "mse"),
    Cell("heads", "hl_gauss", "hl_gauss"),
    Cell("losses", "calql"),
    Cell("losses", "td", "td"),
    Cell("losses", "cql", "cql"),
    Cell("losses", "mc", "mc"),
    Cell("prefix", "executed"),
    Cell("prefix", "first_action", "first_action"),
    Cell("inputs", "reached_poses"),
    Cell("inputs", "raw", "raw"),
    Cell("refine", "none"),
    Cell("refine", "small_steps", refine="gradient:?steps=5&step_size=0.02"),
    Cell("refine", "large_steps", refine="gradient:?steps=5&step_size=0.1"),
    Cell("controls", "random", choose="random"),
    Cell("controls", "shuffled", "shuffled"),
)


@dataclass(frozen=True)
class Arguments:
    """Make the tables of what steers."""

    data: Path
    """Episode store the critics are trained on."""
    policy: Path
    """The base policy."""
    work: Path = Path("runs/benchmarks/steering")
    """Where critics and finished cells are kept."""
    out: Path = Path("benchmarks/results/steering.json")
    """Where the tables are kept."""
    episodes: int = 400
    """Initial states; every cell plays all of them."""
    seed: int = 100_000
    """The first of them."""
    train_seed: int = 0
    """Seed of every critic."""
    temperature: float = 1.0
    """The policy's noise scale, in every cell."""
    only: tuple[str, ...] = ()
    """Tables to make (k, members, heads, losses, prefix, inputs, refine, controls, oracle); all unless given."""
    oracle: OracleSettings = field(default_factory=OracleSettings)
    """How the oracle is played."""
    json: bool = False
    """Print only the JSON object."""

    def run(self) -> None:
        console = Console(stderr=True, quiet=self.json)
        self.work.mkdir(parents=True, exist_ok=True)
        cells = [cell for cell in CELLS if self._wants(cell.table)]
        self._train_critics(sorted({cell.critic for cell in cells} | {"recipe"}), console)
        results = self._play([Cell("k", "1", samples=1), *cells], console)
        tables = self._tables(cells, results)
        if self._wants("oracle"):
            tables["oracle"] = self._once("oracle", partial(self._oracle, console))
        kept = json.loads(self.out.read_text()) if self.out.exists() else {}
        keep(self.out, kept | tables)
        print(json.dumps(kept | tables))

    def _wants(self, table: str) -> bool:
        return not self.only or table in self.only

    def _once(self, name: str, make: Any) -> Any:
        """A cell's result: read if it is there, else made and kept."""
        path = self.work / f"{name}.json"
        if not path.exists():
            keep(path, make())
        return json.loads(path.read_text())

    def _train_critics(self, names: Sequence[str], console: Console) -> None:
        """Missing critics, one per core at a time. The recipe comes first: it fills the candidate cache for all."""
        missing = [name for name in names if not self._critic(name).exists()]
        first = [name for name in missing if name == "recipe"]
        for name in first:
            self._train(name, console)
        with ThreadPoolExecutor(cores()) as pool:
            list(pool.map(partial(self._train, console=console), [name for name in missing if name != "recipe"]))

    def _train(self, name: str, console: Console) -> None:
        console.print(f"training {name}")
        words = ["train", "critic", self.data, self._critic(name), "--policy", self.policy, "--seed", self.train_seed]
        words += ["--threads", 1]
        command = [sys.executable, "-m", "steer.cli.main", *map(str, words), *CRITICS[name]]
        log = self.work / f"{name}.log"
        with log.open("w") as output:
            done = subprocess.run(command, stdout=output, stderr=output, check=False)
        if done.returncode:
            raise SystemExit(f"training {name} failed, see {log}:\n{log.read_text()[-2000:]}")

    def _critic(self, name: str) -> Path:
        return self.work / "critics" / name

    def _play(self, cells: Sequence[Cell], console: Console) -> dict[str, list[bool]]:
        """Successes of each cell, in the order of the initial states."""
        results: dict[str, list[bool]] = {}
        for cell in cells:
            # The same critic, K and rule under another table's name is the same cell.
            results[cell.name] = self._once(self._key(cell), partial(self._successes, cell, console))
        return results

    def _key(self, cell: Cell) -> str:
        refine = cell.refine.replace(":?", "-").replace("&", "-").replace("=", "")
        parts = [cell.critic, f"k{cell.samples}", cell.choose, refine]
        if cell.samples == 1:
            parts = ["base"]
        if cell.choose == "random":
            parts = [f"random-k{cell.samples}"]
        return "cell-" + "-".join(part for part in parts if part)

    def _successes(self, cell: Cell, console: Console) -> list[bool]:
        setup = Setup(ENVIRONMENT, str(self.policy), str(self._critic(cell.critic)), refine=cell.refine)
        settings = RolloutSettings(
            num_samples=cell.samples,
            temperature=self.temperature,
            execute=4,
            selection=Selection(choose=cell.choose),  # type: ignore[arg-type]  # one of CELLS
        )
        jobs = [Job(self.seed + i, settings) for i in range(self.episodes)]
        with Runner(setup) as runner, ProgressBar(console) as bar:
            task = bar.add_task(cell.name, total=len(jobs))
            played = runner.run(jobs, lambda done, _: bar.update(task, completed=done))
        return [rollout.success for rollout in played]

    def _tables(self, cells: Sequence[Cell], results: Mapping[str, list[bool]]) -> dict[str, Any]:
        """table -> variant -> success with its Wilson interval, and the paired difference from the base."""
        tables: dict[str, Any] = {}
        base = results["k-1"]
        for cell in cells:
            success = results[cell.name]
            rate, low, high = wilson(sum(success), len(success))
            gain, gain_low, gain_high = paired_difference(base, success)
            tables.setdefault(cell.table, {})[cell.variant] = {
                "success": rate,
                "low": round(low, 4),
                "high": round(high, 4),
                "episodes": len(success),
                "gain": [round(value, 4) for value in (gain, gain_low, gain_high)],
            }
        return tables

    def _oracle(self, console: Console) -> dict[str, Any]:
        return oracle_share(str(self.policy), str(self._critic("recipe")), self.temperature, self.oracle, console)


if __name__ == "__main__":
    tyro.cli(Arguments).run()
