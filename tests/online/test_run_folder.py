"""The folder of a run: who may have it, and what it was started with."""

from __future__ import annotations

from pathlib import Path

import pytest

from steer.errors import ConfigError
from steer.online.run_folder import read_settings


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "give the folder of a `steer finetune` run"),
        ('{"policy": ', "cannot be read"),
        ("\xff", "cannot be read"),
        ("[1]", "holds no settings"),
    ],
)
def test_settings_that_cannot_be_read_are_explained(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "run.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigError, match=message):
        read_settings(tmp_path)


def test_a_file_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(ConfigError, match="no run.json here"):
        read_settings(tmp_path / "run")
