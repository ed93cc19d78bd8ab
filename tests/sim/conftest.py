"""One environment for all tests of this folder: making one costs 0.1 s, and nothing may depend on earlier episodes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sim.env import PickPlace


@pytest.fixture(scope="session")
def env() -> Iterator[PickPlace]:
    made = PickPlace()
    yield made
    made.close()
