"""`steer collect`: mixed-quality demonstrations of the pick-and-place task, on all cores, into an episode store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, TypeAlias

import tyro
from rich.console import Console
from rich.table import Table

from steer.data.episode import Episode
from steer.data.store import EpisodeStore
from steer.errors import ConfigError
from steer.parallel import WorkerPool
from steer.progress import ProgressBar

Recorded: TypeAlias = tuple[str, bool, int]
"""Mode, success and length of one demonstration."""


@dataclass(frozen=True)
class Collect:
    """Record scripted demonstrations, some of which fail on purpose in named ways."""

    store: Annotated[Path, tyro.conf.Positional]
    """Episode store to create or to add to."""
    episodes: int = 600
    """Episodes to record."""
    seed: int = 0
    """First seed; episode i starts from seed + i. Evaluation uses other seeds (100000 and up)."""
    workers: int = 0
    """Processes; 0: one per core."""

    def run(self) -> None:
        if self.episodes < 1:
            raise ConfigError(f"--episodes is {self.episodes}: record at least 1")
        recorded: list[Recorded] = []
        console = Console(soft_wrap=True)
        try:
            collect(self.store, self.episodes, self.seed, self.workers, recorded)
        except KeyboardInterrupt:
            console.print(f"kept {len(recorded)} episodes; the same command records the rest", highlight=False)
            raise
        if len(recorded) < self.episodes:
            console.print(f"{self.episodes - len(recorded)} of these seeds were there already", highlight=False)
        console.print(_summary(recorded))


def collect(path: Path, episodes: int, seed: int, workers: int, recorded: list[Recorded]) -> None:
    """Record the seeds that the store does not hold yet; what is stored is appended to `recorded` as it comes.

    Every published episode survives a kill, and an interruption publishes what is in memory.
    """
    from sim.demonstrations import SOURCE
    from sim.env import PickPlace

    environment = PickPlace()
    store = EpisodeStore.create(path, environment.robot_spec, exist_ok=True)
    environment.close()
    there = {record.info.get("seed") for record in store.records() if record.source == SOURCE}
    seeds = [number for number in range(seed, seed + episodes) if number not in there]
    with store.writer() as writer, WorkerPool(_demonstrator, workers, describe=_describe) as pool, ProgressBar() as bar:
        task = bar.add_task("collect", total=len(seeds))
        for episode in pool.map(seeds):
            writer.add(episode)
            bar.advance(task)
            recorded.append((str(episode.info.get("mode", "")), bool(episode.success), len(episode.actions)))


def _demonstrator() -> Callable[[int], Episode]:
    """One worker's tools: an environment, kept for all its episodes."""
    import gymnasium

    from sim.demonstrations import demonstrate

    return partial(demonstrate, gymnasium.make("steer/PickPlace-v0"))


def _describe(seed: int) -> str:
    return f"the demonstration of seed {seed}"


def _summary(episodes: Sequence[Recorded]) -> Table:
    count = Counter(mode for mode, _, _ in episodes)
    good = Counter(mode for mode, success, _ in episodes if success)
    table = Table(
        title=f"{len(episodes)} episodes, {sum(good.values())} succeeded, {sum(n for _, _, n in episodes)} steps"
    )
    table.add_column("mode")
    table.add_column("episodes", justify="right")
    table.add_column("succeeded", justify="right")
    for mode, n in count.most_common():
        table.add_row(mode, str(n), f"{good[mode]}  ({good[mode] / n:.0%})")
    return table
