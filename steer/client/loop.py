"""`ControlLoop`: runs a robot at its control rate.

    every tick, at an absolute deadline:  observe -> history -> intervener or broker -> safety -> send -> judge -> record

The loop owns the clock. No inference, no network and no disk on its thread. Without a fresh chunk it holds, and says so once;
when answers come again it moves on. Whatever ends the run (a key, a signal, an error), the robot is told to hold, and the
episode is recorded up to there.
"""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass, replace

import numpy as np
import structlog
from jaxtyping import Float

from steer.client.broker import Action, BrokerConfig, ChunkBroker
from steer.client.clock import Clock, MonotonicClock, Stop
from steer.client.interpreter import punctual
from steer.client.outcomes import EpisodicRobot, SimulatorOutcome
from steer.client.recorder import End, Step, StepSink
from steer.client.safety import SafetyError, SafetyFilter
from steer.client.timing import Deadlines, TickErrors, TickStatistics
from steer.data.trace import Choice
from steer.errors import SteerError
from steer.history import History
from steer.intervention import Intervener, Takeover
from steer.observation import Task
from steer.outcome import NOTHING, OutcomeSource, StoppedBy
from steer.robot import Frame, Robot
from steer.steering import Steering

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class LoopConfig:
    """How long to run. 0 means no limit."""

    episodes: int = 0
    duration_s: float = 0.0
    dry_run: bool = False
    """Send nothing: ask for actions and check them, but leave the robot alone."""
    seed: int = 0
    episode_s: float = 0.0
    """Longest time of one episode, at the control rate. Who judges at every step (a simulation) then has the last word: without a
    success it failed. Where nobody has said anything, nothing is known."""


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
    interventions: int = 0
    """Of `sent`, what somebody who took over sent."""


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
        outcome: OutcomeSource | None = None,
        intervener: Intervener | None = None,
    ) -> None:
        """task: overrides what the robot's world asks for. clock and pool: for tests, see `Clock` and `ChunkBroker`.

        outcome: who says what was achieved, by default the robot's world where it knows. intervener: who may take over.
        """
        self._robot = robot
        self._world = SimulatorOutcome(robot) if isinstance(robot, EpisodicRobot) else None
        self._source: OutcomeSource | None = outcome or self._world
        self._intervener = intervener
        self._config = config
        self._execution = broker.execution
        self._max_stale_s = broker.max_stale_s
        self._clock = clock or MonotonicClock()
        self._rate_hz = robot.spec.action.rate_hz
        self._safety = SafetyFilter(robot.spec)
        self._broker = ChunkBroker(steering, broker, self._rate_hz, self._clock.now, self._safety.foresee, pool)
        self._history = History(steering.observation)
        self._recorder = recorder
        self._task = task
        self._stop = Stop()
        self._stopped_by: StoppedBy = "end"
        self._stop_detail = ""
        self.statistics = TickStatistics()
        self._episode = 0
        self._finished = 0
        self._successes: int | None = None
        self._sent = 0
        self._stale_sent = 0
        self._oldest_sent_s = 0.0
        self._interventions = 0
        self._judgement = NOTHING
        self._success: bool | None = None
        self._whole = False  # did the present episode come to its end, or to the end of its own time?
        self._holding = True
        self._taken_over = False

    def stop(self, reason: StoppedBy = "stop", detail: str = "") -> None:
        """End the run before the next tick. detail: for the summary, where it says more than the reason (a signal's name)."""
        self._stopped_by, self._stop_detail = reason, detail
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
            stopped_by=self._stop_detail or self._stopped_by,
            interventions=self._interventions,
        )

    def _over(self, end_s: float) -> bool:
        episodes = self._config.episodes
        return self._stop.is_set() or self._clock.now() >= end_s or bool(episodes and self._finished >= episodes)

    def _run_episode(self, end_s: float) -> None:
        self._begin()
        why: StoppedBy = "fault"
        try:
            why = self._play(end_s)
        except SafetyError:
            why = "safety"
            raise
        except KeyboardInterrupt:
            why = "signal"
            raise
        finally:
            self._end(why)

    def _play(self, end_s: float) -> StoppedBy:
        """Tick until the episode is over; returns why it is."""
        deadlines = Deadlines(self._clock.now(), 1.0 / self._rate_hz)
        ticks = round(self._config.episode_s * self._rate_hz) or None
        tick = 0
        while tick != ticks:
            self._clock.sleep_until(deadlines.due, self._stop)
            now = self._clock.now()
            if self._stop.is_set():
                return self._stopped_by
            if now >= end_s:
                return "limit"
            self.statistics.add(now - deadlines.due)
            self._tick(tick)
            tick += 1
            if self._judgement.ended:
                self._whole = True
                return "end"
            self.statistics.skipped += deadlines.advance(self._clock.now())
        self._whole = True
        return "limit"

    def _begin(self) -> None:
        # Homing moves a real arm, which a dry run must not; a simulation has to begin somewhere.
        if not self._config.dry_run or isinstance(self._robot, EpisodicRobot):
            self._robot.home()
        self._episode += 1
        self._judgement, self._success, self._whole = NOTHING, None, False
        self._holding = True  # until the first answer, which is no event to announce
        self._taken_over = False
        for watcher in (self._source, self._intervener):
            if watcher is not None:
                watcher.begin()
        self._history.reset()
        self._safety.reset()
        self._broker.reset(self._episode, self._config.seed + 10_000 * (self._episode - 1))

    def _tick(self, tick: int) -> None:
        frame = self._robot.observe()
        self._history.push(frame)
        takeover = self._intervene(frame)
        action = None
        if takeover is None:
            action = self._broker.action(tick, self._history.observation, self._present_task())
            self._say(action)
        command = self._safety.check(_wanted(takeover, action))
        self._account(action)
        if command is None:
            self._stand_still()
            return
        if not self._config.dry_run:
            command = self._robot.send(command)
            self._sent += 1
            self._interventions += takeover is not None
        self._safety.sent(command)
        self._judge()
        if self._recorder is not None:
            choice = None if action is None else Choice.of(action.decision, action.offset, action.number)
            self._recorder.step(Step(frame, command, choice, takeover is not None, self._judgement.reward))

    def _intervene(self, frame: Frame) -> Takeover | None:
        """What somebody who has taken over wants; None while the policy drives."""
        if self._intervener is None:
            return None
        takeover = self._intervener.act(frame, self._safety.last)
        if self._taken_over != (takeover is not None):
            self._taken_over = takeover is not None
            _log.info("taken over" if self._taken_over else "given back", by=self._intervener.name)
            self._broker.drop()
            self._holding = True  # until the next answer, which is asked for when it is given back
        return takeover

    def _judge(self) -> None:
        """Ask what the command that was just sent led to."""
        world = NOTHING if self._world is None else self._world.judge()
        said = world if self._source is self._world or self._source is None else self._source.judge()
        if world.ended and not said.ended:
            said = replace(said, truncated=True)  # the world cannot go on, whoever judges it
        self._judgement = said
        if said.success is not None:
            # Success in passing counts, also in a world that goes on.
            self._success = bool(self._success) or said.success

    def _stand_still(self) -> None:
        """Without a command: a tick at which nothing was sent is no step of the episode."""
        if not self._config.dry_run:
            self._robot.hold()

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

    def _end(self, why: StoppedBy) -> None:
        self._finished += self._whole
        if self._whole and self._success is not None:
            self._successes = (self._successes or 0) + self._success
        if self._recorder is not None:
            self._recorder.end(self._ending(why))

    def _ending(self, why: StoppedBy) -> End:
        # What succeeded has, however it ended; of an episode that was cut short, nobody has said that it failed.
        success = self._success if self._whole or self._success else None
        return End(
            frame=self._last_frame(),
            terminated=self._judgement.terminated,
            truncated=why != "end" or self._judgement.truncated,
            success=success,
            success_source=self._source.name if success is not None and self._source is not None else "",
            task=self._present_task(),
            info={
                "episode": self._episode,
                "stopped_by": why,
                "num_samples": self._execution.num_samples,
                "temperature": self._execution.temperature,
            },
        )

    def _last_frame(self) -> Frame | None:
        """What the last action led to; None where the sensors do not say, which may be what ended the episode."""
        try:
            frame = self._robot.observe()
            self._robot.spec.observation.validate_frame(frame.arrays)
            return frame
        except SteerError as error:
            _log.warning("no frame after the last action", reason=str(error))
            return None

    def _present_task(self) -> Task:
        """What the caller asked for, else what the robot's world asks for."""
        if self._task is not None:
            return self._task
        task = getattr(self._robot, "task", None)
        return task if isinstance(task, Task) else Task()


def _wanted(takeover: Takeover | None, action: Action | None) -> Float[np.ndarray, " a"] | None:
    if takeover is not None:
        return takeover.action
    return None if action is None else action.values
