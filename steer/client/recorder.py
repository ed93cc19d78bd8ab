"""`Recorder`: turns what the control loop did into episodes and writes them to a store on a thread of its own.

The loop hands over one `Step` per tick and never waits. Memory is bounded: when steps of `max_bytes` are not on the disk yet,
whether their episode is too long or the disk too slow, the present episode is given up (one with a gap would teach a critic
things that never happened), which is said and counted.
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
MAX_BYTES = 4_000_000_000
# What the objects of a step take beside its frame, measured.
_STEP_BYTES = 1200


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

    @property
    def size(self) -> int:
        """Bytes in memory, about."""
        return _STEP_BYTES + sum(array.nbytes for array in self.frame.arrays.values())


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


class _GivenUp:
    """To the recorder's thread: forget what there is of the present episode."""


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

    def __init__(self, store: EpisodeStore, source: str = "policy", max_bytes: int = MAX_BYTES) -> None:
        """max_bytes: steps in memory; while an episode is written it is there twice."""
        self.counts: Counter[str] = Counter()
        """"episodes" published, "incomplete" episodes that memory had no room for, "dropped" steps of these, "failed" writes (what
        can be is written later)."""
        self._store = store
        self._source = source
        self._queue: queue.SimpleQueue[Step | End | _GivenUp | None] = queue.SimpleQueue()
        self._max_bytes = max_bytes
        # Each belongs to one thread, the loop's and the recorder's, so that neither waits for the other.
        self._bytes_in, self._bytes_out = 0, 0
        self._given_up = False  # the present episode, as the loop's thread knows
        self._unpublished = 0  # bytes of the steps that the writer holds
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
        size = step.size
        if not self._given_up and self._held + size > self._max_bytes:
            self._give_up()
        if self._given_up:
            self.counts["dropped"] += 1
            return
        self._bytes_in += size
        self._queue.put(step)

    def end(self, end: End) -> None:
        """The present episode is over."""
        if not self._given_up:
            self._queue.put(end)
        self._given_up = False

    @property
    def _held(self) -> int:
        """Bytes of the steps in memory."""
        return self._bytes_in - self._bytes_out

    def _give_up(self) -> None:
        self._given_up = True
        self.counts["incomplete"] += 1
        _log.error(
            "no memory left to record in: this episode will be missing",
            held_gb=round(self._held / 1e9, 2),
            advice="end episodes sooner (--episode-s), give it more memory (--record-gb), or a faster disk",
        )
        self._queue.put(_GivenUp())

    def _work(self) -> None:
        steps: list[Step] = []
        while (item := self._next()) is not None:
            if isinstance(item, Step):
                steps.append(item)
                continue
            size = sum(step.size for step in steps)
            if isinstance(item, End) and len(steps) > (item.frame is None):
                self._unpublished += size
                self._write(steps, item)
            else:
                self._bytes_out += size
            steps = []

    def _next(self) -> Step | End | _GivenUp | None:
        """The next item; until it comes, what is complete is published when its time has come."""
        while True:
            if self._writer.buffered and time.monotonic() >= self._publish_by:
                self._try(self._writer.flush)
            try:
                return self._queue.get(timeout=IDLE_S)
            except queue.Empty:
                self._publish_by = 0.0

    def _write(self, steps: list[Step], end: End) -> None:
        if not self._writer.buffered:
            self._publish_by = time.monotonic() + PUBLISH_AFTER_S
        self._try(lambda: self._writer.add(to_episode(steps, end, self._source)))
        if self._held > self._max_bytes // 2:  # the next episode needs room as well
            self._try(self._writer.flush)

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
        if not self._writer.buffered:
            self._bytes_out += self._unpublished
            self._unpublished = 0
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
