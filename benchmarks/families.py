"""One critic, many policies: the demo's critic, unchanged, steers policies of other families, trained on the same episodes.

    python -m benchmarks.families --data runs/demo/episodes --critic runs/demo/critic [--only flow ...] [--json]

The critic was trained with candidates of the demo's own policy and never saw one of these. Base and steered play the same
initial states at the same noise scale; `random` takes one of the K candidates by chance, so that a policy whose first candidate is
not like the others (a Gaussian's is the mean) shows what the critic had to choose from.

A LeRobot policy needs `make install-lerobot`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console

from benchmarks.cells import ENVIRONMENT, Cells
from benchmarks.keep import keep
from steer.evaluation.rollout import RolloutSettings
from steer.evaluation.setup import Setup
from steer.evaluation.statistics import paired_difference
from steer.selection import Selection

# Flags of `steer train policy`; everything else is the family's default.
TRAINED: Mapping[str, Sequence[str]] = {
    "diffusion_unet": ("--kind", "diffusion", "--backbone", "unet"),
    "diffusion_transformer": ("--kind", "diffusion", "--backbone", "transformer"),
    "flow": ("--kind", "flow"),
    "gaussian": ("--kind", "gaussian"),
    "openvla_tokens": ("--kind", "openvla"),
}
LEROBOT = "lerobot_diffusion"
Rule = Literal["argmax", "random"]


@dataclass(frozen=True)
class Arguments:
    """Steer policies of every family with one critic."""

    data: Path
    """Episode store that the critic was trained on, and the policies are."""
    critic: Path
    """The critic."""
    work: Path = Path("runs/benchmarks/families")
    """Where policies and finished cells are kept."""
    out: Path = Path("benchmarks/results/families.json")
    """Where the table is kept."""
    episodes: int = 200
    """Initial states."""
    seed: int = 100_000
    """The first of them."""
    train_seed: int = 0
    """Seed of every policy."""
    temperature: float = 1.0
    """Noise scale of both sides."""
    samples: int = 8
    """K of the steered side."""
    only: tuple[str, ...] = ()
    """Families to make; all unless given."""
    lerobot_python: Path = Path(".venv-lerobot/bin/python")
    """Interpreter of LeRobot's environment."""
    json: bool = False
    """Print only the JSON object."""

    def run(self) -> None:
        cells = Cells(self.work, Console(stderr=True, quiet=self.json))
        names = [name for name in (*TRAINED, LEROBOT) if not self.only or name in self.only]
        kept = json.loads(self.out.read_text()) if self.out.exists() else {}
        for name in names:
            kept |= {name: self._family(name, cells)}
            keep(self.out, kept)
        print(json.dumps(kept))

    def _family(self, name: str, cells: Cells) -> dict[str, Any]:
        policy = self._policy(name, cells)
        base = self._play(f"{name}-base", policy, "", 1, "argmax", cells)
        random = self._play(f"{name}-random", policy, "", self.samples, "random", cells)
        steered = self._play(f"{name}-steered", policy, str(self.critic), self.samples, "argmax", cells)
        difference, low, high = paired_difference(base, steered)
        return {
            "base": round(sum(base) / len(base), 4),
            "random": round(sum(random) / len(random), 4),
            "steered": round(sum(steered) / len(steered), 4),
            "difference": round(difference, 4),
            "low": round(low, 4),
            "high": round(high, 4),
            "episodes": len(base),
        }

    def _play(self, name: str, policy: str, critic: str, samples: int, rule: Rule, cells: Cells) -> list[bool]:
        settings = RolloutSettings(samples, self.temperature, execute=4, selection=Selection(choose=rule))
        seeds = range(self.seed, self.seed + self.episodes)
        return cells.play(name, Setup(ENVIRONMENT, policy, critic), settings, seeds)

    def _policy(self, name: str, cells: Cells) -> str:
        """The name of the trained policy, trained now if it is missing."""
        path = self.work / "policies" / name
        if name == LEROBOT:
            if not path.exists():
                train = [self.lerobot_python, "-m", "policies.lerobot.train", f"--store={self.data}", f"--out={path}"]
                cells.run(name, [*train, f"--seed={self.train_seed}"])
            return f"lerobot:{path}"
        if not path.exists():
            words = ["train", "policy", self.data, path, "--seed", self.train_seed, "--threads", 1, *TRAINED[name]]
            cells.steer(name, words)
        return str(path)


if __name__ == "__main__":
    tyro.cli(Arguments).run()
