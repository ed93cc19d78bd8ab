"""`ChunkBroker`: has the next action ready at every tick, and asks for the next chunk in the background.

    tick      n    n+1  n+2  n+3  n+4  n+5
    plan      a0   a1   a2                    d = 1 tick before the plan runs out, a request is made from the frames
    request             ?                     of that tick; it carries the d actions that will still run (a2), and
    answer                   b0   b1   b2     takes effect after them with E = 3 new ones

From standstill (the first tick, or after a gap) nothing is committed: the robot holds until the answer is there, and all
d + E steps of it are new, so that again what a critic scored, the prefix d + E, is what is executed. An answer that comes
late starts when it comes: the robot held in between, so it is still where the committed actions left it. Executed is only
an action

- of this episode (an answer to a request from before `reset` is foreign, and so is one whose committed actions never ran), and
- whose observation is at most `max_stale_s` old when it is sent.

No inference, no network and no disk on the caller's thread. With d = 0, for simulators that wait, it blocks instead of
holding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as WaitTimeoutError
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import structlog
from jaxtyping import Float

from steer.client.safety import SafetyError
from steer.decision import Decision, Request
from steer.errors import ConfigError, DeadlineError, SessionError, SteerError, UnavailableError
from steer.observation import Observation, Task
from steer.steering import Steering
from steer.wire import Execution

Actions: TypeAlias = Float[np.ndarray, "n a"]

_TRANSIENT = (UnavailableError, DeadlineError, SessionError)
_log = structlog.get_logger(__name__)


@runtime_checkable
class Located(Protocol):
    """A `Steering` that wants to know which step a request belongs to."""

    def locate(self, episode: int, step: int) -> None: ...


@dataclass(frozen=True)
class BrokerConfig:
    """How chunks are asked for and executed."""

    execution: Execution = field(default_factory=Execution)
    """K, temperature, E and selection of every request; E (`execute`) counts new steps."""
    committed: int = 0
    """d: ask so many ticks before the plan runs out. 0: wait for each answer (`synchronous`)."""
    max_stale_s: float = 1.0
    """An action is sent only while its observation is at most so old."""
    wait_s: float = 10.0
    """synchronous: longest wait for an answer."""
    retry_s: float = 0.5
    """After a failed request, ask again after so long."""
    give_up_s: float = 60.0
    """Without any answer for so long, the run ends with the last error."""
    max_not_finite: int = 10
    """After so many chunks in a row that hold a number that is not finite, the run ends."""

    @property
    def synchronous(self) -> bool:
        return self.committed == 0


@dataclass(frozen=True)
class Action:
    """Step `offset` of decision `number` of the episode, on its way to the robot.

    observed_s: when the frame was captured that it was decided on.
    """

    decision: Decision
    number: int
    offset: int
    observed_s: float

    @property
    def values(self) -> Float[np.ndarray, " a"]:
        step: Float[np.ndarray, " a"] = self.decision.actions[self.offset]
        return step

    @property
    def first(self) -> bool:
        """Of its chunk."""
        return self.offset == 0


@dataclass
class _Plan:
    """The actions still to run of one decision, and the age of what it was decided on."""

    decision: Decision
    number: int
    observed_s: float
    next: int = 0

    @property
    def remaining(self) -> int:
        return self.decision.executed - self.next


@dataclass
class _Asked:
    """A request in flight."""

    answer: Future[Decision]
    episode: int
    observed_s: float
    starts_at: int
    applies: bool = True


class ChunkBroker:
    """See the module. All methods belong to one thread, the control loop's."""

    def __init__(
        self,
        steering: Steering,
        config: BrokerConfig,
        rate_hz: float,
        now: Callable[[], float],
        foresee: Callable[[Actions], Actions] = lambda actions: actions,
        pool: Executor | None = None,
    ) -> None:
        """foresee: what the robot will be sent for the actions that are planned next (safety may change them).

        pool: where requests run, one at a time; by default a thread of the broker's own.
        """
        self._steering = steering
        self._config = config
        self._now = now
        self._foresee = foresee
        self._check(steering.horizon, rate_hz)
        self._pool = pool or ThreadPoolExecutor(1, thread_name_prefix="broker")
        self._asked: _Asked | None = None
        self._plan: _Plan | None = None
        self._episode = 0
        self._seed = 0
        self._decisions = 0
        self._refused = 0
        self._failing_since: float | None = None
        self._ask_again_at = 0.0
        self._error: SteerError | None = None
        self.counts: Counter[str] = Counter()
        """"asked", "chunks" taken, "late" answers, "foreign", "stale" and "not finite" ones dropped, "failed" requests."""

    def reset(self, episode: int, seed: int) -> None:
        """A new episode: what was planned and asked before is not for it. Request i of it has the seed `seed` + i."""
        self._episode = episode
        self._seed = seed
        self._decisions = 0
        self._plan = None

    def action(self, tick: int, observation: Callable[[], Observation], task: Task) -> Action | None:
        """The action of this tick, or None when there is none that may be sent. Raises what cannot be mended by asking again.

        observation: makes the window of the newest frames; called only when a request is due.
        """
        self._collect(tick)
        self._drop_stale()
        if self._due():
            self._ask(tick, observation(), task)
            if self._config.synchronous:
                self._wait()
                self._collect(tick)
        return self._take()

    def drop(self) -> None:
        """Forget the plan and what was asked for it: somebody else drives, and what follows starts from another place."""
        self._plan = None
        if self._asked is not None:
            self._asked.applies = False

    def close(self) -> None:
        """Let go of the background thread; a request in flight ends with its own time-out."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    @property
    def failing(self) -> SteerError | None:
        """Why there are no answers at present, or None."""
        return self._error

    # -- asking

    def _due(self) -> bool:
        if self._asked is not None or self._now() < self._ask_again_at:
            return False
        remaining = 0 if self._plan is None else self._plan.remaining
        return remaining in (0, self._config.committed)

    def _ask(self, tick: int, observation: Observation, task: Task) -> None:
        committed = self._committed()
        execution = self._config.execution
        # From standstill all of the scored prefix is new.
        execute = execution.execute
        if committed is None and execute:
            execute += self._config.committed
        request = Request(
            observation=observation,
            task=task,
            seed=self._seed,
            num_samples=execution.num_samples,
            temperature=execution.temperature,
            execute=execute,
            committed=committed,
            selection=execution.selection,
        )
        self._seed += 1
        self.counts["asked"] += 1
        answer = self._pool.submit(self._infer, request, self._episode, tick)
        wait = int(not self._config.synchronous) if committed is None else len(committed)
        self._asked = _Asked(answer, self._episode, observation.time_s, tick + wait)

    def _committed(self) -> Actions | None:
        """What will really be sent of the plan before the answer takes effect: the critic is to score that."""
        if self._plan is None or not self._plan.remaining:
            return None
        return self._foresee(self._plan.decision.actions[self._plan.next :])

    def _infer(self, request: Request, episode: int, step: int) -> Decision:
        """On the background thread."""
        if isinstance(self._steering, Located):
            self._steering.locate(episode, step)
        return self._steering.infer(request)

    def _wait(self) -> None:
        assert self._asked is not None
        try:
            self._asked.answer.exception(self._config.wait_s)
        except WaitTimeoutError:
            _log.warning("no answer in time, holding", waited_s=self._config.wait_s)

    # -- answers

    def _collect(self, tick: int) -> None:
        """Take an answer that has come and whose time has come."""
        asked = self._asked
        if asked is None or not asked.answer.done():
            return
        if asked.episode != self._episode or not asked.applies:
            self.counts["foreign"] += 1
            self._asked = None
            return
        error = asked.answer.exception()
        if error is not None:
            self._asked = None
            self._failed(error)
        elif tick >= asked.starts_at:
            self._asked = None
            self._answered()
            self.counts["late"] += tick > asked.starts_at
            self._adopt(asked.answer.result(), asked.observed_s)

    def _adopt(self, decision: Decision, observed_s: float) -> None:
        """Make it the plan, unless it holds a number that is not finite: it could neither be sent nor committed."""
        if np.isfinite(decision.actions).all():
            self.counts["chunks"] += 1
            self._refused = 0
            self._plan = _Plan(decision, self._decisions, observed_s)
            self._decisions += 1
            return
        if not self.counts["not finite"]:
            _log.warning("a chunk is not finite, holding and asking again", policy=decision.policy_version)
        self.counts["not finite"] += 1
        self._refused += 1
        if self._refused >= self._config.max_not_finite:
            raise SafetyError(
                f"{self._refused} chunks in a row of policy {decision.policy_version} hold numbers that are not finite, the run "
                "ends: serve another version"
            )
        self._ask_again_at = self._now() + self._config.retry_s

    def _answered(self) -> None:
        if self._failing_since is not None:
            _log.info("answers again", after_s=round(self._now() - self._failing_since, 1))
        self._failing_since, self._error = None, None

    def _failed(self, error: BaseException) -> None:
        """Keep on asking where that can help, within bounds; otherwise raise."""
        if not isinstance(error, _TRANSIENT):
            raise error
        self.counts["failed"] += 1
        now = self._now()
        if self._failing_since is None:
            self._failing_since = now
            _log.warning("no answer: holding when the plan runs out, and asking again", reason=str(error))
        self._error = error
        self._ask_again_at = now + self._config.retry_s
        if now - self._failing_since >= self._config.give_up_s:
            raise UnavailableError(f"no answer for {self._config.give_up_s:g} s, the run ends: {error}") from error

    # -- the plan

    def _drop_stale(self) -> None:
        plan = self._plan
        if plan is not None and plan.remaining and self._now() - plan.observed_s > self._config.max_stale_s:
            self.counts["stale"] += 1
            # What was asked meanwhile was asked for a robot that these actions would have moved.
            self.drop()

    def _take(self) -> Action | None:
        self._drop_stale()
        plan = self._plan
        if plan is None or not plan.remaining:
            return None
        action = Action(plan.decision, plan.number, plan.next, plan.observed_s)
        plan.next += 1
        return action

    def _check(self, horizon: int, rate_hz: float) -> None:
        """Refuse settings under which no chunk could be executed to its end."""
        config = self._config
        committed, execute = config.committed, config.execution.execute or horizon - config.committed
        if committed < 0 or execute < max(1, committed) or committed + execute > horizon:
            raise ConfigError(
                f"{committed} committed and {execute} executed steps of a chunk of {horizon}: execute at least 1 and at least "
                "as many as are committed, and no more than the chunk holds"
            )
        # One more step, because a frame may be as old as the tick before it is used.
        needed_s = (committed + execute + 1) / rate_hz
        if needed_s > config.max_stale_s:
            raise ConfigError(
                f"max_stale_s is {config.max_stale_s:g}, but {committed} + {execute} steps at {rate_hz:g} Hz need "
                f"{needed_s:g}: allow more, or execute fewer steps"
            )
