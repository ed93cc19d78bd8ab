"""Progress without a terminal: lines now and then, and one at the end."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from steer import progress
from steer.progress import ProgressBar


@pytest.fixture
def log() -> io.StringIO:
    return io.StringIO()


def test_lines_are_due_by_time(log: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 6))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    bar = ProgressBar(Console(file=log))
    task = bar.add_task("policy", total=5)
    for step in range(1, 5):
        bar.update(task, completed=step, note="loss 1")
    bar.advance(task)
    assert log.getvalue().splitlines() == ["policy: 3/5 loss 1", "policy: 5/5 loss 1"]


def test_what_is_soon_done_is_one_line(log: io.StringIO) -> None:
    with ProgressBar(Console(file=log)) as bar:
        task = bar.add_task("collect", total=3)
        for _ in range(3):
            bar.advance(task)
    assert log.getvalue().splitlines() == ["collect: 3/3"]
