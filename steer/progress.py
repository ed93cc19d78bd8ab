"""The progress of everything long: a bar on a terminal, a line every few seconds where there is none."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

# Often enough to see that something moves, seldom enough for a log file.
_LINE_EVERY_S = 10.0


class _Note(ProgressColumn):
    """A task's field `note`, if it has one: the loss, the rate."""

    def render(self, task: Task) -> Text:
        return Text(str(task.fields.get("note", "")), style="dim")


class ProgressBar(Progress):
    """rich's progress, fed by `add_task`, `update` and `advance`; without a terminal it prints lines instead of nothing."""

    def __init__(self, console: Console | None = None) -> None:
        console = console or Console(stderr=True)
        super().__init__(
            TextColumn("{task.description:<12}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            _Note(),
            console=console,
            disable=not console.is_terminal,
        )
        self._due_s: dict[TaskID, float] = {}

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """See `rich.progress.Progress.update`."""
        super().update(task_id, **changes)
        self._tell(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """See `rich.progress.Progress.advance`."""
        super().advance(task_id, advance)
        self._tell(task_id)

    def _tell(self, task_id: TaskID) -> None:
        """Without a terminal: a line when one is due, and one at the end."""
        if self.console.is_terminal:
            return
        task, now = self._tasks[task_id], time.monotonic()
        due = self._due_s.setdefault(task_id, now + _LINE_EVERY_S)
        if now < due and not (task.finished and due < math.inf):
            return
        self._due_s[task_id] = math.inf if task.finished else now + _LINE_EVERY_S
        of = f"/{task.total:g}" if task.total is not None else ""
        line = f"{task.description}: {task.completed:g}{of} {task.fields.get('note', '')}"
        self.console.print(line.rstrip(), soft_wrap=True, highlight=False)


@contextmanager
def stages(console: Console | None = None) -> Iterator[Callable[[str, int], Callable[[int, int], None]]]:
    """A bar for each stage of a longer job: `stage(name, total)` opens one and returns what to call with (done, total)."""
    with ProgressBar(console) as bar:

        def stage(name: str, total: int) -> Callable[[int, int], None]:
            task = bar.add_task(name, total=total)
            return lambda done, _: bar.update(task, completed=done)

        yield stage
