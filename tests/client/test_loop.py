"""The control loop, with a clock that is told the time: what is sent, when it holds, how it ends."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from structlog.testing import capture_logs

from steer.client.broker import BrokerConfig
from steer.client.loop import ControlLoop, LoopConfig
from steer.client.recorder import End, Step
from steer.environment import Outcome
from steer.errors import RobotError, SpecError, UnavailableError
from steer.observation import Task
from steer.robot import Frame
from steer.spec import Array
from steer.wire import Execution
from tests.client.doubles import FakeClock, FakeSteering, InlinePool
from tests.fakes import ROBOT, FakeRobot

OVERLAP = BrokerConfig(Execution(num_samples=4, execute=3), committed=1)
SECOND = LoopConfig(duration_s=1.0)


@dataclass
class Sink:
    """Keeps what a recorder would write."""

    steps: list[Step] = field(default_factory=list)
    ends: list[End] = field(default_factory=list)

    def step(self, step: Step) -> None:
        self.steps.append(step)

    def end(self, end: End) -> None:
        self.ends.append(end)


@dataclass
class FakeGame(FakeRobot):
    """A robot whose world ends after `length` commands; every second episode succeeds."""

    length: int = 6
    outcome: Outcome | None = None
    task: Task = field(default_factory=lambda: Task("reach"))

    def home(self) -> None:
        super().home()
        self.outcome, self._left = None, self.length

    def send(self, action: Array) -> Array:
        super().send(action)
        self._left -= 1
        over = self._left == 0
        self.outcome = Outcome(self.observe(), float(over), over, False, over and self.homed % 2 == 0)
        return action


class Bench:
    def __init__(self, config: LoopConfig = SECOND, robot: FakeRobot | None = None, sink: Sink | None = None) -> None:
        self.clock, self.steering = FakeClock(), FakeSteering()
        self.robot = robot or FakeRobot()
        self.robot.now = self.clock.now
        self.sink = sink
        self.loop = ControlLoop(
            self.robot, self.steering, OVERLAP, config, recorder=sink, clock=self.clock, pool=InlinePool()
        )


def test_twenty_commands_in_a_second_and_only_the_first_is_a_hold() -> None:
    bench = Bench()
    summary = bench.loop.run()
    assert (summary.ticks.ticks, summary.sent, summary.holds, summary.stale_sent) == (20, 20, 1, 0)
    np.testing.assert_array_equal(bench.robot.sent[0], np.zeros(3))
    assert summary.stopped_by == "end"
    assert bench.robot.held == 1  # it stands still afterwards


def test_an_absolute_robot_is_sent_nothing_before_the_first_answer() -> None:
    sink = Sink()
    bench = Bench(SECOND, FakeRobot(replace(ROBOT, hold="repeat")), sink)
    summary = bench.loop.run()
    first = bench.steering.engine.decide([bench.steering.requests[0]])[0]
    np.testing.assert_array_equal(bench.robot.sent[:4], first.actions)
    assert (summary.ticks.ticks, summary.sent, summary.holds, len(sink.steps)) == (20, 19, 1, 19)
    assert bench.robot.held == 2  # at the first tick, and when the run ends


def test_what_is_sent_is_what_was_decided() -> None:
    bench = Bench()
    bench.loop.run()
    first = bench.steering.engine.decide([bench.steering.requests[0]])[0]
    np.testing.assert_array_equal(bench.robot.sent[1:5], first.actions)


def test_a_dry_run_sends_nothing_at_all() -> None:
    bench = Bench(replace(SECOND, dry_run=True))
    summary = bench.loop.run()
    assert (summary.ticks.ticks, summary.sent, summary.chunks > 0) == (20, 0, True)
    assert (bench.robot.sent, bench.robot.homed, bench.robot.held) == ([], 0, 0)


def test_a_server_that_dies_makes_it_hold_and_say_so_once_and_it_moves_on_when_answers_come_again() -> None:
    bench = Bench(LoopConfig(duration_s=6.0))
    bench.clock.at(101.0, lambda: setattr(bench.steering, "fail", UnavailableError("it died")))
    bench.clock.at(104.0, lambda: setattr(bench.steering, "fail", None))
    with capture_logs() as logs:
        summary = bench.loop.run()
    said = [(line["event"], line.get("reason", "")) for line in logs if line["event"].startswith(("holding", "moving"))]
    assert [event for event, _ in said] == ["moving", "holding: no fresh chunk", "moving"]
    assert said[1][1] == "it died"
    held = [not sent.any() for sent in bench.robot.sent]
    assert all(held[25:75])  # 1.25 s to 3.75 s
    assert not any(held[95:])
    assert summary.failed_requests >= 2


def test_a_chunk_with_a_number_that_is_not_finite_is_held_instead() -> None:
    bench = Bench()
    poison = np.full((4, 4, 3), np.nan, np.float32)
    bench.steering.change = lambda decision: replace(decision, candidates=poison)
    summary = bench.loop.run()
    assert summary.not_finite == summary.asked - summary.chunks > 0
    assert summary.chunks == 0
    assert not np.any(bench.robot.sent)


def test_a_nan_in_the_state_ends_the_run_with_the_robot_holding() -> None:
    bench = Bench()

    def break_sensor() -> None:
        bench.robot.observe = lambda: Frame({"state": np.array([0, np.nan, 0], np.float32)}, bench.clock.now())

    bench.clock.at(100.5, break_sensor)
    with pytest.raises(SpecError, match=r"state: ee\.y = nan is not finite"):
        bench.loop.run()
    assert len(bench.robot.sent) == 10
    assert bench.robot.held == 1


def test_a_robot_that_fails_is_told_to_hold() -> None:
    bench = Bench()

    def send(action: Array) -> Array:
        raise RobotError("a cable was pulled")

    bench.robot.send = send
    with pytest.raises(RobotError, match="cable"):
        bench.loop.run()
    assert bench.robot.held == 1


def test_stop_ends_before_the_next_command() -> None:
    bench = Bench(LoopConfig())
    bench.clock.at(100.5, lambda: bench.loop.stop("key"))
    summary = bench.loop.run()
    assert (summary.stopped_by, len(bench.robot.sent)) == ("key", 10)


def test_episodes_start_at_home_with_other_seeds_and_their_successes_are_counted() -> None:
    bench = Bench(LoopConfig(episodes=4), FakeGame())
    summary = bench.loop.run()
    assert (summary.episodes, summary.successes, bench.robot.homed) == (4, 2, 4)
    assert summary.sent == 24
    starts = [bench.steering.requests[i].seed for i, (_, step) in enumerate(bench.steering.places) if step == 0]
    assert starts == [0, 10_000, 20_000, 30_000]
    assert bench.steering.requests[0].task == Task("reach")


@pytest.mark.parametrize(
    ("config", "stopped_by", "successes"),
    [
        (LoopConfig(episodes=1), "end", 1),
        (LoopConfig(episodes=1, episode_s=0.25), "limit", 1),
        (LoopConfig(duration_s=0.25), "limit", None),  # cut short: no episode to count, but a success all the same
    ],
)
def test_success_in_passing_counts_as_in_an_evaluation(
    config: LoopConfig, stopped_by: str, successes: int | None
) -> None:
    class Passing(FakeGame):
        def send(self, action: Array) -> Array:
            super().send(action)
            self.outcome = replace(self.outcome, success=self._left == 3)
            return action

    sink = Sink()
    summary = Bench(config, Passing(), sink).loop.run()
    (end,) = sink.ends
    assert (summary.successes, end.success, end.success_source) == (successes, True, "simulator")
    assert end.info["stopped_by"] == stopped_by


def test_a_dry_run_of_a_simulation_begins_its_world_but_sends_nothing() -> None:
    bench = Bench(replace(SECOND, dry_run=True), FakeGame())
    bench.loop.run()
    assert (bench.robot.homed, bench.robot.sent) == (1, [])


def test_every_tick_and_end_is_handed_to_the_recorder() -> None:
    sink = Sink()
    Bench(LoopConfig(episodes=1), FakeGame(), sink).loop.run()
    assert [s.choice is None for s in sink.steps] == [True] + [False] * 5
    assert [s.choice is not None and s.choice.first for s in sink.steps] == [False, True, False, False, False, True]
    assert [s.reward for s in sink.steps] == [0, 0, 0, 0, 0, 1]
    assert np.isfinite([s.choice.value for s in sink.steps[1:] if s.choice is not None]).all()
    (end,) = sink.ends
    assert (end.terminated, end.truncated, end.success, end.success_source) == (True, False, False, "simulator")
    np.testing.assert_allclose(end.frame.arrays["state"], sum(s.sent for s in sink.steps), atol=1e-6)


def test_an_interrupted_episode_is_truncated_and_nobody_says_whether_it_succeeded() -> None:
    sink = Sink()
    Bench(SECOND, FakeRobot(), sink).loop.run()
    (end,) = sink.ends
    assert (end.terminated, end.truncated, end.success) == (False, True, None)


def test_the_largest_step_of_the_robot_holds_over_a_whole_run() -> None:
    robot = FakeRobot(replace(ROBOT, max_step=(0.002,) * 3))
    summary = Bench(SECOND, robot).loop.run()
    assert summary.large_steps > 0
    assert np.abs(np.diff(robot.sent, axis=0)).max() <= 0.002 + 1e-6


def test_committed_is_what_will_really_be_sent() -> None:
    bench = Bench(SECOND, FakeRobot(replace(ROBOT, max_step=(0.002,) * 3)))
    bench.loop.run()
    asked = [(r, tick) for r, (_, tick) in zip(bench.steering.requests, bench.steering.places, strict=True)]
    committed = [(r.committed, tick) for r, tick in asked if r.committed is not None]
    assert len(committed) >= 5
    for actions, tick in committed:
        np.testing.assert_array_equal(actions, bench.robot.sent[tick : tick + len(actions)])
