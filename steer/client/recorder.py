"""`Recorder`: turns what the control loop did into episodes and writes them to a store on a thread of its own.

The loop hands over one `Step` per tick and never waits. Memory is bounded: when `max_steps` are waiting to be written,
further steps are dropped, the episode they belong to is not kept (one with a gap would teach a critic things that never
happened), and both are counted.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import structlog
from jaxtyping import Float

from steer.data.episode import Episode
from steer.data.store import EpisodeStore
from steer.data.trace import Choice, trace_arrays
from steer.data.writer import EpisodeWriter
from steer.errors import SteerError
from steer.observation import Task
from steer.robot import Frame

_log = structlog.get_logger(__name__)

# Segments of one episode each would be slow to load by the thousand; so that a crash costs little, none waits for long.
EPISODES_PER_SEGMENT = 10
PUBLISH_AFTER_S = 60.0
IDLE_S = 1.0


@dataclass(frozen=True)
class Step:
    """One tick: what was seen, what was sent, which decision it came from, and what it earned.

    choice: None where the robot was told to hold, and where a person acted (`intervention`).
    """

    frame: Frame
    sent: Float[np.ndarray, " a"]
    choice: Choice | None
    intervention: bool = False
    reward: float = 0.0


@dataclass(frozen=True)
class End:
    """The end of an episode: the frame after its last action, and how it ended.

    frame: None where it cannot be had (a sensor broke); the last step is then left out, and its frame is the last.
    """

    frame: Frame | None
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
    """See the module. A context manager: leaving it publishes what is complete.

    Episodes are published together: `EPISODES_PER_SEGMENT` of them, or what there is after `PUBLISH_AFTER_S`, or when the loop
    has been silent for `IDLE_S`.
    """

    _writer: EpisodeWriter

    def __init__(self, store: EpisodeStore, source: str = "policy", max_steps: int = 20_000) -> None:
        """max_steps: steps in memory before further ones are dropped; 20,000 are 17 minutes at 20 Hz."""
        self.counts: Counter[str] = Counter()
        """"episodes" published, "dropped" steps, "incomplete" episodes, "failed" writes (what can be is written later).

        "lost" episodes: nothing could be written for so long that `max_steps` were waiting for it.
        """
        self._store = store
        self._source = source
        self._queue: queue.Queue[Step | tuple[End, bool] | None] = queue.Queue(max_steps)
        self._max_steps = max_steps
        self._gap = False  # belongs to the loop's thread: was anything of the present episode dropped?
        self._publish_by = 0.0
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)

    def __enter__(self) -> Recorder:
        self._writer = self._store.writer(EPISODES_PER_SEGMENT)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._queue.put(None)
        self._thread.join()
        self._writer.close()
        self._count()

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
        while (item := self._next()) is not None:
            if isinstance(item, Step):
                # An episode without an end is bounded as well; what is too long is counted with those that have gaps.
                if len(steps) <= self._max_steps:
                    steps.append(item)
                continue
            end, whole = item
            if not whole or len(steps) > self._max_steps:
                self.counts["incomplete"] += 1
            elif len(steps) > (end.frame is None):
                self._write(steps, end)
            steps = []

    def _next(self) -> Step | tuple[End, bool] | None:
        """The next item; until it comes, what is complete is published when its time has come."""
        while True:
            if self._writer.buffered and time.monotonic() >= self._publish_by:
                self._try(self._writer.flush)
            try:
                return self._queue.get(timeout=IDLE_S)
            except queue.Empty:
                self._publish_by = 0.0

    def _write(self, steps: list[Step], end: End) -> None:
        if not self._has_room(len(steps)):
            if not self.counts["lost"]:
                _log.error(
                    "the disk takes nothing and memory is full: episodes are lost", waiting=self._writer.buffered
                )
            self.counts["lost"] += 1
            return
        if not self._writer.buffered:
            self._publish_by = time.monotonic() + PUBLISH_AFTER_S
        self._try(lambda: self._writer.add(to_episode(steps, end, self._source)))

    def _has_room(self, steps: int) -> bool:
        """May so many more wait for the disk? What is there is written first, if it can be."""
        if self._writer.buffered_steps + steps > self._max_steps:
            self._try(self._writer.flush)
        return self._writer.buffered_steps + steps <= self._max_steps

    def _try(self, write: Callable[[], object]) -> None:
        try:
            write()
        except (
            SteerError,
            ValueError,
        ) as error:  # ValueError: numpy, of frames that changed their shape in mid-episode
            self.counts["failed"] += 1
            # Soon enough, and not at every step while a disk is full.
            self._publish_by = time.monotonic() + PUBLISH_AFTER_S
            _log.error("not written", reason=str(error))
        self._count()

    def _count(self) -> None:
        self.counts["episodes"] = len(self._writer.acknowledged)


def to_episode(steps: list[Step], end: End, source: str) -> Episode:
    """The episode of so many steps, see `steer.data.trace` for what is kept of each."""
    frames = [step.frame for step in steps]
    if end.frame is None:
        steps = steps[:-1]
    else:
        frames.append(end.frame)
    traced, facts = trace_arrays([s.choice for s in steps], [s.intervention for s in steps], len(steps[0].sent))
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
        steps=traced,
        info={**end.info, **facts},
    )
