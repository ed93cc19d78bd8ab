"""Tests that need LeRobot's environment: `make test-lerobot`. A run that does not name this folder leaves it out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from policies.lerobot import load
from policies.lerobot.policy import LeRobotPolicy
from steer.model_name import ModelName

HERE = Path(__file__).parent
Start = Callable[[Path], LeRobotPolicy]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    named = [Path(argument.partition("::")[0]).resolve() for argument in config.args]
    return None if any(path.is_relative_to(HERE) for path in named) else True


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    """Loads checkpoint folders; their workers end with the module."""
    started: list[LeRobotPolicy] = []

    def make(folder: Path) -> LeRobotPolicy:
        started.append(load(ModelName("lerobot", str(folder))))
        return started[-1]

    yield make
    for policy in started:
        policy.close()
