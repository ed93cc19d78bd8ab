"""`steer run` where it needs no server: what is refused, and the account of what was recorded."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from steer.cli.main import main
from steer.cli.run import recorded_line


def test_a_dry_run_is_not_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", "--robot", "gym:none", "--dry-run", "--duration-s", "1", "--record", str(tmp_path / "store")]
    with pytest.raises(SystemExit):
        main(words)
    assert "leave --record away" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "store").exists()


def test_what_was_not_recorded_is_said() -> None:
    assert recorded_line(Counter(episodes=3), Path("store")) == "recorded 3 episodes to store"
    counts = Counter(episodes=0, incomplete=1, dropped=4000, failed=2)
    assert recorded_line(counts, Path("store")) == (
        "recorded 0 episodes to store (1 incomplete episodes, 4000 dropped steps, 2 failed writes)"
    )
