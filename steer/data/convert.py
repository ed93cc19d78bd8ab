"""Other people's episodes into an episode store: all or nothing, unless damaged files may be left out.

The store is built beside its destination and renamed when it is complete, so that an interrupted conversion leaves nothing
that looks finished. Sources: a Diffusion Policy replay buffer, or a folder of `.npz` episodes (`steer.data.npz`).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from steer.data.episode import Episode
from steer.data.npz import draft_from_npz, npz_files, read_npz
from steer.data.replay_buffer import ReplayBuffer, is_replay_buffer
from steer.data.store import EpisodeStore
from steer.data.writer import EpisodeWriter
from steer.draft import unknown_fields
from steer.errors import SpecError, StoreError
from steer.files import publish_folder
from steer.robot import RobotSpec

Progress = Callable[[int, int], None]
SHOWN = 10


@dataclass(frozen=True)
class Conversion:
    """What was done. left_out: one message per episode that did not fit. unknown: what the robot spec does not say."""

    episodes: int
    steps: int
    left_out: tuple[str, ...]
    unknown: tuple[str, ...]


def convert(
    source: Path, destination: Path, robot: RobotSpec, skip_broken: bool = False, progress: Progress | None = None
) -> Conversion:
    """Write every episode of `source` into a new store.

    robot: what the episodes are checked against; of their observations, the keys it lists are taken.
    Raises `StoreError` that lists what is wrong, episode by episode; then there is no store.
    """
    if destination.exists():
        raise StoreError(f"{destination} exists: choose another folder, or move it away")
    aside = destination.with_name(f".{destination.name}.converting")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        result = _fill(EpisodeStore.create(aside, robot), source, skip_broken, progress)
        publish_folder(aside, destination)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return result


def draft(source: Path, rate_hz: float, progress: Progress | None = None) -> RobotSpec:
    """A robot spec drafted from the data; what they cannot tell is "unknown"."""
    if is_replay_buffer(source):
        drafted = ReplayBuffer(source).robot
        return replace(drafted, action=replace(drafted.action, rate_hz=rate_hz))
    return draft_from_npz(_files(source), source.name, rate_hz, progress)


def _fill(store: EpisodeStore, source: Path, skip_broken: bool, progress: Progress | None) -> Conversion:
    problems: list[str] = []
    episodes = steps = 0
    named = _episodes(source, store.robot)
    with store.writer() as writer:
        for done, (name, read) in enumerate(named, start=1):
            problem, length = _take(writer, read, store.robot)
            if problem:
                problems.append(problem if name in problem else f"{name}: {problem}")
            else:
                episodes, steps = episodes + 1, steps + length
            if progress is not None:
                progress(done, len(named))
    if problems and not (skip_broken and episodes):
        more = [f"... and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        shown = "\n  ".join(problems[:SHOWN] + more)
        raise StoreError(
            f"{len(problems)} of {len(named)} episodes of {source} do not fit, nothing was written:\n  {shown}"
        )
    return Conversion(episodes, steps, tuple(problems), tuple(unknown_fields(store.robot)))


def _take(writer: EpisodeWriter, read: Callable[[], Episode], robot: RobotSpec) -> tuple[str, int]:
    """What is wrong with an episode ("" if nothing) and its length. A failure to write is raised, not told."""
    try:
        episode = read()
    except (SpecError, StoreError) as error:
        return str(error), 0
    kept = {key: value for key, value in episode.observations.items() if key in robot.observation.keys}
    try:
        writer.add(replace(episode, observations=kept))
    except SpecError as error:
        return str(error), 0
    return "", len(episode)


def _episodes(source: Path, robot: RobotSpec) -> list[tuple[str, Callable[[], Episode]]]:
    """A name and a reader of each episode."""
    if not is_replay_buffer(source):
        return [(str(path), partial(read_npz, path)) for path in _files(source)]
    store = EpisodeStore.open(source, robot=robot)
    return [(record.id, partial(store.episode, index)) for index, record in enumerate(store.records())]


def _files(source: Path) -> list[Path]:
    files = npz_files(source)
    if not files:
        raise StoreError(
            f"{source} is neither a replay buffer (data/action, meta/episode_ends) nor a folder of .npz episodes"
        )
    return files
