"""`steer run` where it needs no server: what is refused, and the account of what was recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from steer.cli.main import main


def test_a_dry_run_is_not_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", "--robot", "gym:none", "--dry-run", "--duration-s", "1", "--record", str(tmp_path / "store")]
    with pytest.raises(SystemExit):
        main(words)
    assert "leave --record away" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "store").exists()
