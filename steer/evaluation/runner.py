"""`Runner`: rollouts on all cores, one process per worker, each with its own environment and models (`steer.parallel`).

Contract: results come in the order of the jobs and do not depend on the number of workers; an error names the seed that was
played. Knows nothing of what is compared with what.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self

from steer.evaluation.rollout import Rollout, RolloutSettings, rollout
from steer.evaluation.setup import Bench, Facts
from steer.parallel import WorkerPool

Progress = Callable[[int, int], None]
"""Called with (episodes played, episodes in all)."""


@dataclass(frozen=True)
class Job:
    """One episode to play."""

    seed: int
    settings: RolloutSettings


class Runner:
    """A pool of players; use it as a context manager. `facts` says what they loaded."""

    def __init__(self, build: Callable[[], Bench], workers: int = 0, episode_timeout_s: float = 900.0) -> None:
        """build: picklable; called once in each worker. workers: 0 takes one per core."""
        self._pool: WorkerPool[Job | None, Rollout | Facts] = WorkerPool(
            partial(_Player, build), workers, episode_timeout_s, _describe
        )
        self.facts: Facts

    def __enter__(self) -> Self:
        self._pool.__enter__()
        (facts,) = self._pool.map([None])
        assert isinstance(facts, Facts)
        self.facts = facts
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.__exit__(kind, error, trace)

    @property
    def pids(self) -> list[int]:
        """Process numbers of the workers."""
        return self._pool.pids

    def run(self, jobs: Sequence[Job], progress: Progress | None = None) -> list[Rollout]:
        """Play all jobs; the results are in their order. Raises `SteerError` naming the seed that failed."""
        played: list[Rollout] = []
        for result in self._pool.map(jobs):
            assert isinstance(result, Rollout)
            played.append(result)
            if progress is not None:
                progress(len(played), len(jobs))
        return played


class _Player:
    """In a worker: plays episodes; None asks what was loaded."""

    def __init__(self, build: Callable[[], Bench]) -> None:
        self._bench = build()

    def __call__(self, job: Job | None) -> Rollout | Facts:
        if job is None:
            return self._bench.facts
        return rollout(self._bench.environment, self._bench.steering, job.seed, job.settings)

    def close(self) -> None:
        self._bench.close()


def _describe(job: Job | None) -> str:
    return "loading" if job is None else f"the episode of seed {job.seed}"
