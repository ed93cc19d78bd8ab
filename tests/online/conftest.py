from __future__ import annotations

from pathlib import Path

import pytest

from tests.online import toys


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FOLDER/{episodes,policy,critic} of a tiny task; read only."""
    return toys.make_models(tmp_path_factory.mktemp("models"))
