"""For every test: one thread per process, since the tests themselves run on all cores; and `steer` commands as processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import Bench, make_plugin

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
# In the background of a shell without job control SIGINT is ignored, and whoever is started from here would ignore it as well.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_plugin(tmp_path_factory.mktemp("plugin"))


@pytest.fixture
def bench(plugin: Path, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(plugin, tmp_path)
    yield made
    made.close()
