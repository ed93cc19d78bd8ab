"""The folder of a run: who may have it, and what it was started with."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

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


def test_settings_that_differ_are_named_and_no_others(tmp_path: Path) -> None:
    run = OnlineFolder(tmp_path)
    run.claim({"seed": 1, "env": "a", "config": {"utd": 1.0, "members": 0}}, resume=False, overwrite=False)
    with pytest.raises(
        ConfigError, match=r"other settings \(config\.utd was 1\.0, now 4\.0; seed was 1, now 2\): resume"
    ):
        run.check({"seed": 2, "env": "a", "config": {"utd": 4.0, "members": 0}}, resume=True, overwrite=False)


def test_a_run_that_is_older_than_a_setting_goes_on(tmp_path: Path) -> None:
    run = OnlineFolder(tmp_path)
    run.claim({"seed": 1, "config": {"utd": 1.0}}, resume=False, overwrite=False)
    with capture_logs() as logs:
        run.check({"seed": 1, "config": {"utd": 1.0, "new": 5}}, resume=True, overwrite=False)
    assert [(log["setting"], log["goes_on_with"]) for log in logs] == [("config.new", 5)]
