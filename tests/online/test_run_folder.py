"""The folder of a run: who may have it, and what it was started with."""

from __future__ import annotations

from pathlib import Path

import pytest

from steer.errors import ConfigError
from steer.online.run_folder import OnlineFolder
from steer.online.settings import read_settings


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
    with pytest.raises(ConfigError, match="give the folder"):
        read_settings(tmp_path / "run")


def test_to_overwrite_removes_what_a_run_wrote(tmp_path: Path) -> None:
    run = OnlineFolder(tmp_path)
    run.claim({"seed": 1}, resume=False, overwrite=False)
    (run.episodes / "segments").mkdir(parents=True)
    run.check({"seed": 2}, resume=False, overwrite=True)
    assert run.episodes.exists()

    assert not run.claim({"seed": 2}, resume=False, overwrite=True)

    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    assert read_settings(tmp_path) == {"seed": 2}
