from __future__ import annotations

from pathlib import Path

import pytest
from store_toys import ROBOT

from steer.data import EpisodeStore


@pytest.fixture
def store(tmp_path: Path) -> EpisodeStore:
    return EpisodeStore.create(tmp_path / "store", ROBOT)
