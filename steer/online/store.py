"""The store of online episodes: made when it is not there yet, and read past segments that were damaged."""

from __future__ import annotations

from pathlib import Path

from steer.data.store import EpisodeStore
from steer.errors import SpecError
from steer.robot import RobotSpec


def online_store(path: Path, robot: RobotSpec) -> EpisodeStore:
    """Open or create it. Raises `SpecError` where it holds another robot's episodes."""
    if not (path / "store.json").exists():
        EpisodeStore.create(path, robot, exist_ok=True)
    store = EpisodeStore.open(path, skip_broken=True)
    if store.robot != robot:
        raise SpecError(
            f"{path} holds episodes of robot {store.robot.name!r}, which differs from {robot.name!r} of the run: "
            "choose another store"
        )
    return store
