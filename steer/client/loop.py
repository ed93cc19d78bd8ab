"""`ControlLoop`: runs a robot at its control rate.

    every tick, at an absolute deadline:  observe -> history -> broker -> safety -> send -> record

The loop owns the clock. No inference, no network and no disk on its thread. Without a fresh chunk it holds, and says so once;
when answers come again it moves on. Whatever ends the run (a key, a signal, an error), the robot is told to hold.
"""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import structlog
from jaxtyping import Float

from steer.client.broker import Action, BrokerConfig, ChunkBroker
from steer.client.clock import Clock, MonotonicClock, Stop
from steer.client.interpreter import punctual
from steer.client.recorder import End, Step, StepSink
from steer.client.safety import SafetyFilter
from steer.client.timing import Deadlines, TickErrors, TickStatistics
from steer.history import History
from steer.observation import Task
from steer.robot import Frame, Robot
from steer.steering import Steering

_log = structlog.get_logger(__name__)


class StepOutcome(Protocol):
    """What one command led to, as a simulation knows it."""

    @property
    def reward(self) -> float: ...
    @property
    def terminated(self) -> bool: ...
    @property
    def truncated(self) -> bool: ...
    @property
    def success(self) -> bool: ...


@runtime_checkable
class EpisodicRobot(Protocol):
    """A robot whose world ends episodes by itself: a simulation. `outcome` is None before the first command of one."""

    @property
    def outcome(self) -> StepOutcome | None: ...


@dataclass(frozen=True)
class LoopConfig:
    """How long to run. 0 means no limit."""

    episodes: int = 0
    duration_s: float = 0.0
    dry_run: bool = False
    """Send nothing: ask for actions and check them, but leave the robot alone."""
    seed: int = 0


@dataclass(frozen=True)
class RunSummary:
    """What happened. `stale_sent` counts actions that were sent although their observation was too old: always 0."""

    ticks: TickErrors
    sent: int
    asked: int
    chunks: int
    late_chunks: int
    failed_requests: int
    holds: int
    not_finite: int
    out_of_bounds: int
    large_steps: int
    stale_dropped: int
    stale_sent: int
    oldest_sent_s: float
    episodes: int
    successes: int | None
    stopped_by: str


class ControlLoop:
    """See the module. `run` blocks; `stop` may be called from any thread or signal handler."""

    def __init__(
        self,
        robot: Robot,
        steering: Steering,
        broker: BrokerConfig,
        config: LoopConfig,
        *,
        recorder: StepSink | None = None,
        clock: Clock | None = None,
        task: Task | None = None,
        pool: Executor | None = None,
    ) -> None:
        """task: overrides what the robot's world asks for. clock and pool: for tests, see `Clock` and `ChunkBroker`."""
        self._robot = robot
        self._config = config
        self._max_stale_s = broker.max_stale_s
        self._clock = clock or MonotonicClock()
        self._rate_hz = robot.spec.action.rate_hz
        self._safety = SafetyFilter(robot.spec)
        self._broker = ChunkBroker(steering, broker, self._rate_hz, self._clock.now, self._safety.foresee, pool)
        self._history = History(steering.observation)
        self._recorder = recorder
        self._task = task
        self._stop = Stop()
        self._stopped_by = "end"
        self.statistics = TickStatistics()
        self._episode = 0
        self._finished = 0
        self._successes: int | None = None
        self._sent = 0
        self._stale_sent = 0
        self._oldest_sent_s = 0.0
        self._succeeded = False
        self._holding = True

    def stop(self, reason: str = "stop") -> None:
        """End the run before the next tick."""
        self._stopped_by = reason
        self._stop.set()

    def run(self) -> RunSummary:
        """Run episodes until one of the limits, `stop`, or an error; the robot holds afterwards."""
        end_s = self._clock.now() + self._config.duration_s if self._config.duration_s else float("inf")
        try:
            with punctual():
                while not self._over(end_s):
                    self._run_episode(end_s)
        finally:
            self._broker.close()
            if not self._config.dry_run:
                self._robot.hold()
        return self.summary()

    def summary(self) -> RunSummary:
        """The account so far; may be asked from another thread while the loop runs."""
        rules, asked = self._safety.counts, self._broker.counts
        return RunSummary(
            ticks=self.statistics.summary(),
            sent=self._sent,
            asked=asked["asked"],
            chunks=asked["chunks"],
            late_chunks=asked["late"],
            failed_requests=asked["failed"],
            holds=rules["held"] + rules["not finite"],
            not_finite=rules["not finite"] + asked["not finite"],
            out_of_bounds=rules["out of bounds"],
            large_steps=rules["large step"],
            stale_dropped=asked["stale"],
            stale_sent=self._stale_sent,
            oldest_sent_s=self._oldest_sent_s,
            episodes=self._finished,
            successes=self._successes,
            stopped_by=self._stopped_by,
        )

    def _over(self, end_s: float) -> bool:
        episodes = self._config.episodes
        return self._stop.is_set() or self._clock.now() >= end_s or bool(episodes and self._finished >= episodes)

    def _run_episode(self, end_s: float) -> None:
        self._begin()
        deadlines = Deadlines(self._clock.now(), 1.0 / self._rate_hz)
        tick = 0
        while True:
            self._clock.sleep_until(deadlines.due, self._stop)
            now = self._clock.now()
            if self._stop.is_set() or now >= end_s:
                self._end(interrupted=True)
                return
            self.statistics.add(now - deadlines.due)
            self._tick(tick)
            tick += 1
            if self._ended():
                self._end(interrupted=False)
                return
            self.statistics.skipped += deadlines.advance(self._clock.now())

    def _begin(self) -> None:
        # Homing moves a real arm, which a dry run must not; a simulation has to begin somewhere.
        if not self._config.dry_run or isinstance(self._robot, EpisodicRobot):
            self._robot.home()
        self._episode += 1
        self._succeeded = False
        self._holding = True  # until the first answer, which is no event to announce
        self._history.reset()
        self._safety.reset()
        self._broker.reset(self._episode, self._config.seed + 10_000 * (self._episode - 1))

    def _tick(self, tick: int) -> None:
        frame = self._robot.observe()
        self._history.push(frame)
        action = self._broker.action(tick, self._history.observation, self._present_task())
        self._say(action)
        command = self._safety.check(None if action is None else action.values)
        self._account(action)
        if command is None:
            self._stand_still()
            return
        if not self._config.dry_run:
            command = self._robot.send(command)
            self._sent += 1
        self._safety.sent(command)
        outcome = self._outcome()
        # A world may report success in passing and go on; the episode then still counts.
        self._succeeded = self._succeeded or (outcome is not None and bool(outcome.success))
        if self._recorder is not None:
            self._recorder.step(self._step(frame, command, action))

    def _stand_still(self) -> None:
        """Without a command: a tick at which nothing was sent is no step of the episode."""
        if not self._config.dry_run:
            self._robot.hold()

    def _step(self, frame: Frame, command: Float[np.ndarray, " a"], action: Action | None) -> Step:
        outcome = self._outcome()
        reward = 0.0 if outcome is None else outcome.reward
        if action is None:
            return Step(frame, command, None, reward=reward)
        decision = action.decision
        value = float(decision.values[decision.chosen]) if decision.scores.size else float("nan")
        return Step(frame, command, action.values, action.first, value, reward)

    def _account(self, action: Action | None) -> None:
        if action is None or self._config.dry_run:
            return
        age_s = self._clock.now() - action.observed_s
        self._oldest_sent_s = max(self._oldest_sent_s, age_s)
        self._stale_sent += age_s > self._max_stale_s

    def _say(self, action: Action | None) -> None:
        """Announce a hold, and its end, once each."""
        holding = action is None
        if holding and not self._holding:
            reason = self._broker.failing
            _log.warning("holding: no fresh chunk", reason="late" if reason is None else str(reason))
        elif self._holding and not holding:
            _log.info("moving", episode=self._episode)
        self._holding = holding

    def _outcome(self) -> StepOutcome | None:
        return self._robot.outcome if isinstance(self._robot, EpisodicRobot) else None

    def _ended(self) -> bool:
        outcome = self._outcome()
        return outcome is not None and (outcome.terminated or outcome.truncated)

    def _end(self, interrupted: bool) -> None:
        outcome = self._outcome()
        if not interrupted and outcome is not None:
            self._finished += 1
            self._successes = (self._successes or 0) + self._succeeded
        if self._recorder is not None:
            self._recorder.end(self._ending(outcome, interrupted))

    def _ending(self, outcome: StepOutcome | None, interrupted: bool) -> End:
        known = outcome is not None and not interrupted
        return End(
            frame=self._robot.observe(),
            terminated=outcome is not None and outcome.terminated,
            truncated=interrupted or (outcome is not None and outcome.truncated),
            success=self._succeeded if known else None,
            success_source="simulator" if known else "",
            task=self._present_task(),
            info={"episode": self._episode, "stopped_by": self._stopped_by if interrupted else "end"},
        )

    def _present_task(self) -> Task:
        """What the caller asked for, else what the robot's world asks for."""
        if self._task is not None:
            return self._task
        task = getattr(self._robot, "task", None)
        return task if isinstance(task, Task) else Task()
