"""`LeRobotPolicy`: Steer's side of a LeRobot checkpoint that runs in a worker process."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog
from jaxtyping import Float, Int

from policies.lerobot.channel import Parcel
from policies.lerobot.process import Worker
from steer.errors import CheckpointError, SpecError, UnavailableError, UnsupportedError
from steer.observation import Batch
from steer.policy import PolicySpec
from steer.serial import from_json
from steer.spec import Array

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Launch:
    """How a worker is started, and how long it may take: to load, and to answer."""

    python: Path
    arguments: Sequence[str]
    start_timeout_s: float = 300.0
    timeout_s: float = 60.0


class Remembered:
    """A context that lies in a worker: its number there, and the worker."""

    def __init__(self, number: int, worker: Worker, rows: int) -> None:
        self.number, self.worker, self.rows = number, worker, rows


class LeRobotPolicy:
    """Implements `steer.policy.Policy`. May be used from several threads; the worker does one request at a time.

    When the worker dies, the request in hand fails with `UnavailableError`, and so do contexts that lay in it; the next `encode`
    starts it again (`restarts` counts, the log tells). One that died before it answered anything is not started again.
    """

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self._lock = threading.Lock()
        self._forgotten: deque[tuple[Worker, int]] = deque()
        self._worker = self._start()
        self.spec = from_json(PolicySpec, self._worker.introduction.header["spec"], "the worker's introduction")
        self.version = str(self._worker.introduction.header["version"])
        self.restarts = 0

    @property
    def worker_pid(self) -> int:
        """Process number of the worker."""
        return self._worker.pid

    def encode(self, observations: Batch) -> Remembered:
        """Check the observations and have the worker encode them."""
        parcel = self._shown("encode", observations)
        with self._lock:
            worker = self._living()
            number = int(self._request(worker, parcel).header["context"])
        context = Remembered(number, worker, len(observations))
        weakref.finalize(context, self._forgotten.append, (worker, number)).atexit = False
        return context

    def sample(
        self,
        context: Remembered,
        num_samples: int,
        seeds: Int[np.ndarray, " b"],
        temperature: float = 1.0,
        committed: Float[np.ndarray, "b d a"] | None = None,
    ) -> Float[np.ndarray, "b k h a"]:
        """K chunks per observation, in one batch. temperature scales the initial noise where the family has one."""
        self.spec.check_request(num_samples, temperature, 0 if committed is None else committed.shape[1])
        if len(seeds) != context.rows:
            raise SpecError(f"seeds: got {len(seeds)}, expected one for each of the {context.rows} observations")
        header = {"do": "sample", "context": context.number, "num_samples": num_samples, "temperature": temperature}
        parcel = Parcel(header, {"seeds": np.asarray(seeds, np.int64)})
        with self._lock:
            candidates = self._request(context.worker, parcel).tensors["candidates"]
        self.spec.action.check_shape(candidates, "the worker's candidates")
        return candidates.copy()

    def inputs(self, observations: Batch) -> Mapping[str, Array]:
        """What LeRobot's pre-processor makes of the observations, [B, T, ...]: for comparisons with it."""
        parcel = self._shown("inputs", observations)
        with self._lock:
            return self._request(self._living(), parcel).tensors

    def trace(
        self, context: Remembered, noise: Float[np.ndarray, "k *shape"] | None, seed: int = 0
    ) -> tuple[Float[np.ndarray, "k h a"], Float[np.ndarray, "k h a"]]:
        """LeRobot's own chunks for this noise, normalised and in the robot's units, not clipped: for comparisons with it."""
        tensors = {} if noise is None else {"noise": noise}
        with self._lock:
            answer = self._request(
                context.worker, Parcel({"do": "trace", "context": context.number, "seed": seed}, tensors)
            )
        return answer.tensors["normalised"], answer.tensors["actions"]

    def close(self) -> None:
        """End the worker; the policy cannot be used after."""
        with self._lock:
            self._worker.stop()

    def _shown(self, do: str, observations: Batch) -> Parcel:
        """The request to do something with observations that were checked."""
        self.spec.observation.validate_batch(observations)
        if any(task.goal_image is not None for task in observations.tasks):
            raise UnsupportedError("LeRobot policies take an instruction and no goal image: leave the image out")
        arrays = {key: observations.arrays[key] for key in self.spec.observation.keys}
        instructions = [task.instruction for task in observations.tasks]
        return Parcel({"do": do, "instructions": instructions}, {**arrays, "mask": observations.mask})

    # -- under the lock

    def _request(self, worker: Worker, parcel: Parcel) -> Parcel:
        if worker is not self._worker:
            raise UnavailableError("the LeRobot worker that encoded this observation died since: encode it again")
        forget = [number for owner, number in self._drain() if owner is worker]
        return worker.request(Parcel({**parcel.header, "forget": forget}, parcel.tensors), self._launch.timeout_s)

    def _drain(self) -> list[tuple[Worker, int]]:
        return [self._forgotten.popleft() for _ in range(len(self._forgotten))]

    def _living(self) -> Worker:
        """The worker; a new one where it has died."""
        if self._worker.alive:
            return self._worker
        if not self._worker.answered:
            raise UnavailableError(
                "the LeRobot worker died again before it answered anything, so it is not started again: see the log"
            )
        _log.warning("LeRobot worker died, starting it again", pid=self._worker.pid, restarts=self.restarts + 1)
        self._worker.stop()
        started = self._start()
        self.restarts += 1
        if started.introduction.header["version"] != self.version:
            started.stop()
            raise CheckpointError("the LeRobot checkpoint was changed while it was in use: load it again")
        self._worker = started
        return started

    def _start(self) -> Worker:
        launch = self._launch
        worker = Worker(launch.python, launch.arguments, launch.start_timeout_s)
        # At exit, and when the policy is dropped; a parent that is killed closes the pair, which ends the worker too.
        weakref.finalize(self, worker.stop)
        return worker
