"""What a run tells while it works: a live table, a line per round without a terminal, JSON lines, and TensorBoard."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text
from torch.utils.tensorboard import SummaryWriter

from steer.errors import CheckpointError
from steer.files import write_text
from steer.online.progress import Round
from steer.serial import to_json

_SHOWN = 12
_COLUMNS: tuple[tuple[str, Callable[[Round], str]], ...] = (
    ("version", lambda r: str(r.version)),
    ("episodes", lambda r: str(r.episodes)),
    ("robot min", lambda r: f"{r.robot_minutes:.1f}"),
    ("success", lambda r: f"{r.success:.2f}"),
    ("last 50", lambda r: f"{r.rolling_success:.2f}"),
    ("UTD", lambda r: f"{r.utd:.2f}"),
    ("Q data", lambda r: _number(r, "critic/q_data")),
    ("TD", lambda r: _number(r, "critic/td_loss")),
    ("|TD| new", lambda r: _number(r, "td_error_fresh")),
    ("replayed", lambda r: _number(r, "td_error_replayed")),
    ("|weights|", lambda r: _number(r, "parameter_norm")),
    ("policy loss", lambda r: _number(r, "policy/loss")),
    ("age", lambda r: "-" if r.behaviour_age is None else str(r.behaviour_age)),
    ("wall s", lambda r: f"{r.seconds:.0f}"),
)


class LiveRun:
    """A context manager; `tell` and `show` are the learner's."""

    def __init__(self, title: str, rounds: Path, logs: Path, known: int, console: Console | None = None) -> None:
        """known: rounds that the resumed state has; lines about later ones, which are played again, are dropped."""
        self._title, self._rounds = title, rounds
        self._console = console or Console(stderr=True)
        self._last: deque[Round] = deque(maxlen=_SHOWN)
        self._doing = ""
        try:
            _drop_after(rounds, known)
            self._writer = SummaryWriter(str(logs), purge_step=known + 1)
        except OSError as error:
            raise CheckpointError(f"{rounds.parent}: cannot be written ({error}): free space, then resume") from error
        self._live = Live(console=self._console, get_renderable=self._render, refresh_per_second=2)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()
        self._writer.close()

    def show(self, what: str, done: int, total: int) -> None:
        """What the learner is at."""
        self._doing = f"{what}: {done} of {total}"

    def tell(self, told: Round) -> None:
        """A finished round."""
        self._last.append(told)
        try:
            with self._rounds.open("a") as file:
                file.write(json.dumps(_plain(told)) + "\n")
        except OSError as error:
            raise CheckpointError(f"{self._rounds}: cannot be written ({error}): free space, then resume") from error
        for name, value in {**_scalars(told), **told.metrics}.items():
            self._writer.add_scalar(name, value, told.version)
        if not self._console.is_terminal:
            words = [f"{name} {text(told)}" for name, text in _COLUMNS]
            self._console.print(", ".join(words), soft_wrap=True, highlight=False)

    def _render(self) -> RenderableType:
        table = Table(title=self._title, title_justify="left")
        for name, _ in _COLUMNS:
            table.add_column(name, justify="right")
        for told in self._last:
            table.add_row(*(text(told) for _, text in _COLUMNS))
        return Group(table, Text(self._doing, style="dim"))


def _drop_after(path: Path, known: int) -> None:
    """Keep so many lines, all of them whole."""
    text = path.read_text() if path.exists() else ""
    kept = "".join(f"{line}\n" for line in text.split("\n")[:-1][:known])
    if kept != text:
        write_text(path, kept)


def _scalars(told: Round) -> dict[str, float]:
    return {name: float(value) for name, value in to_json(told).items() if isinstance(value, (int, float))}


def _plain(told: Round) -> dict[str, object]:
    """JSON knows no NaN."""
    content = to_json(told)
    content["metrics"] = {name: value for name, value in told.metrics.items() if math.isfinite(value)}
    return dict(content)


def _number(told: Round, name: str) -> str:
    return f"{told.metrics[name]:.3g}" if name in told.metrics else "-"
