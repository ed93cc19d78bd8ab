"""What a run tells while it works."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from steer.errors import CheckpointError
from steer.online.live import LiveRun
from steer.online.progress import Round, read_rounds


def told(version: int, **metrics: float) -> Round:
    return Round(version, 25 * version, 1000, 0.83, 0.9, 0.8, 1.0, 300, 300, 0, 12.0, {"critic/q_data": 0.4, **metrics})


def test_rounds_are_kept_as_lines_and_replayed_ones_are_replaced(tmp_path: Path) -> None:
    quiet = Console(file=io.StringIO())
    with LiveRun("t", tmp_path / "rounds.jsonl", tmp_path / "logs", 0, quiet) as live:
        live.tell(told(1, parameter_norm=float("nan")))
        live.tell(told(2))
    # The resumed state knows one round: the second is played again.
    with LiveRun("t", tmp_path / "rounds.jsonl", tmp_path / "logs", 1, quiet) as live:
        live.tell(told(2, parameter_norm=3.0))
    lines = read_rounds(tmp_path / "rounds.jsonl")
    assert [line["version"] for line in lines] == [1, 2]
    assert lines[0]["metrics"] == {"critic/q_data": 0.4}
    assert lines[1]["metrics"] == {"critic/q_data": 0.4, "parameter_norm": 3.0}


def test_a_line_that_a_kill_cut_off_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "rounds.jsonl").write_text('{"version": 1}\n{"vers')
    assert read_rounds(tmp_path / "rounds.jsonl") == [{"version": 1}]


def test_lines_are_written_anew_only_where_one_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds, quiet = tmp_path / "rounds.jsonl", Console(file=io.StringIO())
    rounds.write_text('{"version": 1}\n{"version": 2}\n')

    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("steer.online.live.write_text", full)
    LiveRun("t", rounds, tmp_path / "logs", 2, quiet)
    with pytest.raises(CheckpointError, match="free space, then resume"):
        LiveRun("t", rounds, tmp_path / "logs", 1, quiet)
    assert [line["version"] for line in read_rounds(rounds)] == [1, 2]


def test_a_line_that_was_cut_off_does_not_spoil_the_next(tmp_path: Path) -> None:
    rounds, quiet = tmp_path / "rounds.jsonl", Console(file=io.StringIO())
    rounds.write_text('{"version": 1}\n{"vers')
    with LiveRun("t", rounds, tmp_path / "logs", 1, quiet) as live:
        live.tell(told(2))
    assert [line["version"] for line in read_rounds(rounds)] == [1, 2]


def test_a_terminal_shows_a_table_and_what_is_being_done(tmp_path: Path) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=160)
    with LiveRun("fine-tuning", tmp_path / "rounds.jsonl", tmp_path / "logs", 0, console) as live:
        live.tell(told(1))
        live.show("critic", 250, 300)
    shown = screen.getvalue()
    assert "fine-tuning" in shown
    assert "robot min" in shown
    assert "critic: 250 of 300" in shown
