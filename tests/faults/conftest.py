"""Real commands between which something breaks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import Bench, make_plugin


@pytest.fixture(scope="session")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_plugin(tmp_path_factory.mktemp("plugin"))


@pytest.fixture
def bench(plugin: Path, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(plugin, tmp_path)
    yield made
    made.close()
