"""Simulated actors: processes that play whole episodes with a published version, and the collector that records these.

An episode counts once its segment is published; an actor or collector that is killed loses only what was in the air, and the
seeds that are missing in the store are played again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import structlog

from steer import registry
from steer.data.episode import Episode
from steer.environment import Environment
from steer.errors import UnavailableError
from steer.evaluation.rollout import RolloutSettings, rollout
from steer.online import engine as engines
from steer.online.engine import Mixture
from steer.online.publish import Versions
from steer.online.refused import playable
from steer.online.store import online_store
from steer.parallel import WorkerPool
from steer.robot import RobotSpec
from steer.selection import Selection
from steer.steering import LocalSteering

_log = structlog.get_logger(__name__)
# A pool whose actors die so often without finishing one episode is not worth another try.
_ATTEMPTS = 3
_EPISODE_S = 900.0


@dataclass(frozen=True)
class Scene:
    """Where actors play, as plain values that travel to their processes. `keys`: our observation key -> the environment's."""

    env_id: str
    options: Mapping[str, Any] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    robot: RobotSpec | None = None

    def make(self) -> Environment:
        return Environment(self.env_id, self.options, self.robot, self.keys)


@dataclass(frozen=True)
class Play:
    """One episode to play. version: which one to play with; None: the newest when it begins; an earlier one where that is refused.
    steered: else the student alone."""

    seed: int
    version: int | None
    steered: bool = True


@dataclass(frozen=True)
class Cast:
    """Who plays: the frozen base by name, the versions of a run, and how their candidates are used."""

    run: Path
    base: str
    base_samples: int
    student_samples: int
    temperature: float
    execute: int
    selection: Selection = Selection()


class Actor:
    """In a process: plays one episode after the other, loading a version when it is first asked for."""

    def __init__(self, scene: Scene, cast: Cast) -> None:
        self._environment, self._cast = scene.make(), cast
        self._versions = Versions(cast.run)
        self._mixture = Mixture(registry.policy(cast.base), cast.base_samples, cast.student_samples)
        self._loaded: tuple[tuple[int, bool], LocalSteering] | None = None

    def __call__(self, play: Play) -> Episode:
        cast = self._cast
        version = playable(cast.run, self._versions.current().version if play.version is None else play.version)
        samples = cast.student_samples + cast.base_samples if play.steered else 1
        settings = RolloutSettings(samples, cast.temperature, cast.execute, cast.selection)
        episode = rollout(self._environment, self._steering(version, play.steered), play.seed, settings).episode
        return replace(episode, info={**episode.info, "version": version})

    def close(self) -> None:
        self._environment.close()

    def _steering(self, version: int, steered: bool) -> LocalSteering:
        if self._loaded is None or self._loaded[0] != (version, steered):
            folder = self._versions.folder(version)
            engine = engines.steered(folder, self._mixture) if steered else engines.alone(folder)
            self._loaded = ((version, steered), LocalSteering(engine, self._environment.robot))
        return self._loaded[1]


class Source(Protocol):
    """Where episodes come from."""

    def gather(self, until: int, version: int, steered: bool, stop: Callable[[], bool]) -> None:
        """Return once the store holds the first `until` episodes of this run, or `stop()` is true."""
        ...

    def close(self) -> None: ...


class Collector:
    """Plays a round at a time, with one version from its first episode to its last: the same run for any number of actors.

    Episodes are published one by one, in the order of their seeds.
    """

    def __init__(self, scene: Scene, cast: Cast, store: Path, robot: RobotSpec, first_seed: int, actors: int) -> None:
        # The episodes of a damaged segment count as missing, and are played again.
        self._store = online_store(store, robot)
        self._first_seed, self._actors = first_seed, actors
        self._build = partial(Actor, scene, cast)
        self._pool: WorkerPool[Play, Episode] | None = None

    @property
    def pids(self) -> list[int]:
        """Process numbers of the living actors."""
        return [] if self._pool is None else self._pool.pids

    def gather(self, until: int, version: int | None, steered: bool, stop: Callable[[], bool]) -> None:
        """Play what is missing of the seeds first_seed, first_seed + 1, ...; see `Source`."""
        failures = 0
        with self._store.writer(episodes_per_segment=1) as writer:
            while missing := self._missing(until):
                try:
                    for episode in self._play([Play(seed, version, steered) for seed in missing]):
                        writer.add(episode)
                        failures = 0
                        if stop():
                            # What was handed out already would be taken for the next round's.
                            self._abandon()
                            return
                except UnavailableError as error:
                    self._abandon()
                    failures += 1
                    if failures == _ATTEMPTS:
                        raise
                    _log.warning("an actor died, starting the actors again", reason=str(error))

    def count(self, until: int) -> int:
        """How many of the first `until` episodes are there already."""
        return until - len(self._missing(until))

    def close(self) -> None:
        """End the actors, each after the episode it is playing."""
        if self._pool is not None:
            self._pool.__exit__(None, None, None)
            self._pool = None

    def _abandon(self) -> None:
        """End the actors at once, whatever they are playing."""
        if self._pool is not None:
            self._pool.__exit__(InterruptedError, None, None)
            self._pool = None

    def _play(self, plays: Sequence[Play]) -> Iterator[Episode]:
        if self._pool is None:
            pool: WorkerPool[Play, Episode] = WorkerPool(self._build, self._actors, _EPISODE_S, _describe)
            self._pool = pool.__enter__()
        return self._pool.map(plays)

    def _missing(self, until: int) -> list[int]:
        self._store.refresh()
        there = {record.info.get("seed") for record in self._store.records()}
        return [seed for seed in range(self._first_seed, self._first_seed + until) if seed not in there]


def _describe(play: Play) -> str:
    return f"the online episode of seed {play.seed}"
