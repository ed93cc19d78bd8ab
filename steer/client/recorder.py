"""`Recorder`: turns what the control loop did into episodes and writes them to a store on a thread of its own.

The loop hands over one `Step` per tick and never waits. Memory is bounded: when `max_steps` are waiting to be written,
further steps are dropped, the episode they belong to is not kept (one with a gap would teach a critic things that never
happened), and both are counted.
"""

from __future__ import annotations

import queue
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import structlog
from jaxtyping import Float

from steer.data.episode import Episode
from steer.data.store import EpisodeStore
from steer.data.writer import EpisodeWriter
from steer.errors import SteerError
from steer.observation import Task
from steer.robot import Frame
from steer.spec import Array

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Step:
    """One tick: what was seen, what was proposed (None while holding), what was sent, and what came of it.

    value: the critic's value of the chunk the action belongs to, NaN without one. chunk_start: first of its chunk.
    """

    frame: Frame
    sent: Float[np.ndarray, " a"]
    proposed: Float[np.ndarray, " a"] | None
    chunk_start: bool = False
    value: float = float("nan")
    reward: float = 0.0


@dataclass(frozen=True)
class End:
    """The end of an episode: the frame after its last action, and how it ended."""

    frame: Frame
    terminated: bool
    truncated: bool
    success: bool | None
    success_source: str
    task: Task
    info: Mapping[str, Any]


class StepSink(Protocol):
    """What the control loop needs of a recorder; neither method may block."""

    def step(self, step: Step) -> None: ...

    def end(self, end: End) -> None: ...


class Recorder:
    """See the module. A context manager: leaving it writes what is complete."""

    _writer: EpisodeWriter

    def __init__(self, store: EpisodeStore, source: str = "policy", max_steps: int = 20_000) -> None:
        """max_steps: steps in memory before further ones are dropped; 20,000 are 17 minutes at 20 Hz."""
        self.counts: Counter[str] = Counter()
        """"episodes" written, "dropped" steps, "incomplete" episodes, "failed" writes."""
        self._store = store
        self._source = source
        self._queue: queue.Queue[Step | tuple[End, bool] | None] = queue.Queue(max_steps)
        self._max_steps = max_steps
        self._gap = False  # belongs to the loop's thread: was anything of the present episode dropped?
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)

    def __enter__(self) -> Recorder:
        self._writer = self._store.writer(episodes_per_segment=1)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._queue.put(None)
        self._thread.join()
        self._writer.close()

    def step(self, step: Step) -> None:
        """One tick of the present episode."""
        self._put(step)

    def end(self, end: End) -> None:
        """The present episode is over."""
        if self._put((end, not self._gap)):
            self._gap = False

    def _put(self, item: Step | tuple[End, bool]) -> bool:
        try:
            self._queue.put_nowait(item)
            return True
        except queue.Full:
            if not self.counts["dropped"]:
                _log.warning("the recorder cannot keep up: dropping steps, their episodes will be missing")
            self.counts["dropped"] += 1
            self._gap = True
            return False

    def _work(self) -> None:
        steps: list[Step] = []
        while (item := self._queue.get()) is not None:
            if isinstance(item, Step):
                # An episode without an end is bounded as well; what is too long is counted with those that have gaps.
                if len(steps) <= self._max_steps:
                    steps.append(item)
                continue
            end, whole = item
            if not whole or len(steps) > self._max_steps:
                self.counts["incomplete"] += 1
            elif steps:
                self._write(steps, end)
            steps = []

    def _write(self, steps: list[Step], end: End) -> None:
        try:
            self._writer.add(to_episode(steps, end, self._source))
            self.counts["episodes"] += 1
        except SteerError as error:
            self.counts["failed"] += 1
            _log.error("an episode was not written", reason=str(error))


def to_episode(steps: list[Step], end: End, source: str) -> Episode:
    """The episode of so many steps; proposed actions are NaN where the robot held."""
    frames = [step.frame for step in steps] + [end.frame]
    nothing = np.full(steps[0].sent.shape, np.nan, np.float32)
    per_step: dict[str, Array] = {
        "proposed": np.stack([nothing if s.proposed is None else s.proposed for s in steps]),
        "held": np.array([s.proposed is None for s in steps]),
        "chunk_start": np.array([s.chunk_start for s in steps]),
        "value": np.array([s.value for s in steps], np.float32),
    }
    return Episode(
        observations={key: np.stack([f.arrays[key] for f in frames]) for key in frames[0].arrays},
        actions=np.stack([s.sent for s in steps]).astype(np.float32),
        rewards=np.array([s.reward for s in steps], np.float32),
        terminated=end.terminated,
        truncated=end.truncated,
        success=end.success,
        success_source=end.success_source,
        task=end.task,
        source=source,
        steps=per_step,
        info=end.info,
    )
