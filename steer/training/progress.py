"""The progress of a run: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_QUIET_S = 10.0


class TrainingProgress:
    """Step, loss, steps per second and the time that remains."""

    def __init__(self, title: str, first: int, steps: int, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._title, self._steps = title, steps
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]} {task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._task = self._bar.add_task(title, total=steps, completed=first, loss="", rate="")
        self._start = (time.monotonic(), first)
        self._said = time.monotonic()

    def __enter__(self) -> TrainingProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, step: int, loss: float) -> None:
        """After `step` updates."""
        now = time.monotonic()
        rate = (step - self._start[1]) / max(now - self._start[0], 1e-9)
        self._bar.update(self._task, completed=step, loss=f"loss {loss:.4f}", rate=f"{rate:.1f} steps/s")
        if not self._console.is_terminal and (now - self._said >= _QUIET_S or step == self._steps):
            self._said = now
            left = (self._steps - step) / max(rate, 1e-9)
            self._console.print(
                f"{self._title}: step {step}/{self._steps} loss {loss:.4f} {rate:.1f} steps/s, {left:.0f} s left",
                soft_wrap=True,
            )
