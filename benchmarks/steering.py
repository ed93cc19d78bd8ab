"""What in the recipe does the work: K, members, heads, losses, prefix, inputs, refinement, controls, and the share of an oracle.

    python -m benchmarks.steering --data runs/demo/episodes --policy runs/demo/policy [--json]

Every variant plays the same initial states at the same noise scale and is one cell; a cell that is done is kept in `--work` and not
made again, so a run that was stopped goes on. The last line is one JSON object, which `benchmarks/results/steering.json` keeps.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from benchmarks.cells import ENVIRONMENT, Cells, success_of
from benchmarks.keep import keep
from benchmarks.oracle import OracleSettings, oracle_share
from steer.evaluation.rollout import RolloutSettings
from steer.evaluation.setup import Setup
from steer.parallel import cores
from steer.selection import Selection

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
    "shuffled_td": ("--outcomes", "permuted", "--algorithm", "td"),
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

    @property
    def key(self) -> str:
        """What is played, whatever table asks for it: the same critic, K and rule are one cell."""
        if self.samples == 1:
            return "cell-base"
        if self.choose == "random":
            return f"cell-random-k{self.samples}"
        refine = self.refine.replace(":?", "-").replace("&", "-").replace("=", "")
        return "-".join(part for part in ("cell", self.critic, f"k{self.samples}", self.choose, refine) if part)


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
    # With the recipe's loss a critic that knows no outcomes still learns from the conservative term to tell recorded actions from
    # the policy's samples; temporal differences alone leave it nothing.
    Cell("controls", "shuffled_calql", "shuffled"),
    Cell("controls", "shuffled_td", "shuffled_td"),
)

BASE = Cell("k", "1", samples=1)


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
        cells = Cells(self.work, Console(stderr=True, quiet=self.json))
        wanted = [cell for cell in CELLS if self._wants(cell.table)]
        self._train_critics(sorted({cell.critic for cell in wanted} | {"recipe"}), cells)
        results = {cell.name: self._play(cell, cells) for cell in (BASE, *wanted)}
        tables: dict[str, Any] = {}
        for cell in wanted:
            tables.setdefault(cell.table, {})[cell.variant] = success_of(results[cell.name], results[BASE.name])
        if self._wants("oracle"):
            tables["oracle"] = cells.once("oracle", partial(self._oracle, cells.console))
        kept = json.loads(self.out.read_text()) if self.out.exists() else {}
        keep(self.out, kept | tables)
        print(json.dumps(kept | tables))

    def _wants(self, table: str) -> bool:
        return not self.only or table in self.only

    def _train_critics(self, names: Sequence[str], cells: Cells) -> None:
        """Missing critics, one per core at a time. The recipe comes first: it fills the candidate cache for all."""
        missing = [name for name in names if not self._critic(name).exists()]
        for name in missing:
            if name == "recipe":
                self._train(name, cells)
        with ThreadPoolExecutor(cores()) as pool:
            list(pool.map(partial(self._train, cells=cells), [name for name in missing if name != "recipe"]))

    def _train(self, name: str, cells: Cells) -> None:
        words = ["train", "critic", self.data, self._critic(name), "--policy", self.policy, "--seed", self.train_seed]
        cells.steer(name, [*words, "--threads", 1, *CRITICS[name]])

    def _critic(self, name: str) -> Path:
        return self.work / "critics" / name

    def _play(self, cell: Cell, cells: Cells) -> list[bool]:
        """Successes of the cell, in the order of the initial states."""
        setup = Setup(ENVIRONMENT, str(self.policy), str(self._critic(cell.critic)), refine=cell.refine)
        settings = RolloutSettings(
            num_samples=cell.samples,
            temperature=self.temperature,
            execute=4,
            selection=Selection(choose=cell.choose),  # type: ignore[arg-type]  # one of CELLS
        )
        return cells.play(cell.key, setup, settings, range(self.seed, self.seed + self.episodes))

    def _oracle(self, console: Console) -> dict[str, Any]:
        return oracle_share(str(self.policy), str(self._critic("recipe")), self.temperature, self.oracle, console)


if __name__ == "__main__":
    tyro.cli(Arguments).run()
