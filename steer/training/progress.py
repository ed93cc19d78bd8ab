"""The progress of a run: step, loss, steps per second and the time that remains."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console

from steer.progress import ProgressBar


class TrainingProgress:
    """A context manager around one bar."""

    def __init__(self, title: str, first: int, steps: int, console: Console | None = None) -> None:
        self._bar = ProgressBar(console)
        self._task = self._bar.add_task(title, total=steps, completed=first)
        self._start = (time.monotonic(), first)

    def __enter__(self) -> TrainingProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, step: int, loss: float) -> None:
        """After `step` updates."""
        start_s, first = self._start
        rate = (step - first) / max(time.monotonic() - start_s, 1e-9)
        self._bar.update(self._task, completed=step, note=f"loss {loss:.4f}, {rate:.1f} steps/s")
