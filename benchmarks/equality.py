"""Is success through gRPC the success in process, episode by episode?

    python -m benchmarks.equality --policy runs/demo/policy --critic runs/demo/critic [--json]

The same seeds are played by workers that hold the models themselves and by workers that ask a deterministic server.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from rich.console import Console

from benchmarks.keep import keep
from steer import registry
from steer.evaluation.rollout import Rollout, RolloutSettings
from steer.evaluation.runner import Job, Runner
from steer.evaluation.setup import Setup
from steer.progress import ProgressBar
from steer.server.server import ServerConfig, running

ENVIRONMENT = "steer/PickPlace-v0"


@dataclass(frozen=True)
class Arguments:
    """Play the same episodes in process and through a server."""

    policy: str
    """Policy checkpoint."""
    critic: str
    """Critic checkpoint."""
    episodes: int = 100
    """Episodes per side."""
    seed: int = 100_000
    """The first of them."""
    samples: int = 8
    """K."""
    json: bool = False
    """Print only the JSON object."""
    out: Path = Path("benchmarks/results/equality.json")
    """Where the result is kept."""

    def run(self) -> None:
        console = Console(stderr=True, quiet=self.json)
        jobs = [Job(self.seed + i, RolloutSettings(self.samples, execute=4)) for i in range(self.episodes)]
        near = _play(Setup(ENVIRONMENT, self.policy, self.critic), jobs, "in process", console)
        torch.set_num_threads(1)
        engine = registry.engine(self.policy, self.critic)
        with running(engine, ServerConfig("127.0.0.1:0", deterministic=True)) as address:
            far = _play(Setup(ENVIRONMENT, server=address), jobs, "through gRPC", console)
        result = compare(near, far)
        keep(self.out, result)
        print(json.dumps(result))


def _play(setup: Setup, jobs: Sequence[Job], name: str, console: Console) -> list[Rollout]:
    with Runner(setup) as runner, ProgressBar(console) as bar:
        task = bar.add_task(name, total=len(jobs))
        return runner.run(jobs, lambda done, _: bar.update(task, completed=done))


def compare(near: Sequence[Rollout], far: Sequence[Rollout]) -> dict[str, Any]:
    """How many episodes agree in success, in length, and in every number that was sent."""
    pairs = list(zip(near, far, strict=True))
    return {
        "episodes": len(pairs),
        "in_process": sum(a.success for a, _ in pairs),
        "through_server": sum(b.success for _, b in pairs),
        "equal_success": sum(a.success == b.success for a, b in pairs),
        "equal_length": sum(a.length == b.length for a, b in pairs),
        "equal_actions": sum(np.array_equal(a.episode.actions, b.episode.actions) for a, b in pairs),
    }


if __name__ == "__main__":
    tyro.cli(Arguments).run()
