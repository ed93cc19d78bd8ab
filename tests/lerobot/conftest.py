"""Tests that need LeRobot's environment: `make test-lerobot`. A run that does not name this folder leaves it out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from policies.lerobot import load
from policies.lerobot.policy import LeRobotPolicy
from steer.model_name import ModelName
from tests.golden.compare_lerobot import stored_or_built

HERE = Path(__file__).parent
Start = Callable[[Path], LeRobotPolicy]
Build = Callable[[Path], Path]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    named = [Path(argument.partition("::")[0]).resolve() for argument in config.args]
    return None if any(path.is_relative_to(HERE) for path in named) else True


@pytest.fixture(scope="session")
def start() -> Iterator[Start]:
    """Loads checkpoint folders, each once, as a worker takes seconds to start; the workers end with the session."""
    started: dict[Path, LeRobotPolicy] = {}

    def make(folder: Path) -> LeRobotPolicy:
        if folder not in started:
            started[folder] = load(ModelName("lerobot", str(folder)))
        return started[folder]

    yield make
    for policy in started.values():
        policy.close()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """The checkpoint folder of a golden case; one whose weights are not stored is built, once."""
    return cache(lambda case: stored_or_built(case, tmp_path_factory.mktemp("built")))
