"""Who says what an episode was worth: the world, or a person's key; and why it ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from steer.client.broker import BrokerConfig
from steer.client.loop import ControlLoop, LoopConfig
from steer.client.outcomes import KeyOutcome, NoOutcome, SimulatorOutcome, outcome_source
from steer.client.recorder import to_episode
from steer.client.safety import SafetyError
from steer.data.episode import check_episode
from steer.errors import ConfigError, RobotError, UnavailableError
from steer.outcome import NOTHING, Judgement, OutcomeSource
from steer.robot import Frame
from steer.spec import Array
from steer.wire import Execution
from tests.client.doubles import FakeClock, FakeSteering, InlinePool
from tests.client.test_loop import FakeGame, Sink
from tests.fakes import ROBOT, FakeRobot


class Bench:
    """A loop with a sink, and what happens at a time."""

    def __init__(
        self, config: LoopConfig, robot: FakeRobot | None = None, outcome: OutcomeSource | None = None
    ) -> None:
        self.clock, self.steering, self.sink = FakeClock(), FakeSteering(), Sink()
        self.robot = robot or FakeRobot()
        self.robot.now = self.clock.now
        broker = BrokerConfig(Execution(num_samples=4, execute=3), committed=1, give_up_s=2.0, max_not_finite=3)
        self.loop = ControlLoop(
            self.robot,
            self.steering,
            broker,
            config,
            recorder=self.sink,
            clock=self.clock,
            pool=InlinePool(),
            outcome=outcome,
        )

    def at(self, time: float, what: Callable[[], None]) -> None:
        self.clock.at(100.0 + time, what)

    def stopped_by(self) -> list[str]:
        return [end.info["stopped_by"] for end in self.sink.ends]


def test_a_key_ends_the_episode_and_says_how_it_went() -> None:
    key = KeyOutcome()
    bench = Bench(LoopConfig(episodes=2), outcome=key)
    bench.at(1.0, lambda: key.press("y"))
    bench.at(2.0, lambda: key.press("n"))
    summary = bench.loop.run()
    won, lost = bench.sink.ends
    assert (won.terminated, won.truncated, won.success, won.success_source) == (True, False, True, "key")
    assert (lost.terminated, lost.truncated, lost.success, lost.success_source) == (False, True, False, "key")
    assert [step.reward for step in bench.sink.steps if step.reward] == [1.0]
    assert bench.stopped_by() == ["end", "end"]
    assert (summary.episodes, summary.successes, bench.robot.homed) == (2, 1, 2)


def test_a_key_of_the_last_episode_does_not_judge_the_next() -> None:
    key = KeyOutcome()
    key.press("n")
    key.begin()
    assert key.judge() == NOTHING
    key.press("x")
    key.press("n")
    key.press("y")
    assert key.judge().success is True
    assert key.judge() == NOTHING


def test_a_person_may_judge_a_simulation_which_still_ends_by_itself() -> None:
    key = KeyOutcome()
    bench = Bench(LoopConfig(episodes=2), FakeGame(length=10), key)
    bench.at(0.2, lambda: key.press("y"))
    summary = bench.loop.run()
    first, second = bench.sink.ends
    assert (first.success, first.success_source) == (True, "key")
    assert (second.success, second.success_source, second.truncated, second.terminated) == (None, "", True, False)
    assert [step.reward for step in bench.sink.steps if step.reward] == [1.0]  # the world's own rewards are not asked
    assert (summary.episodes, summary.successes) == (2, 1)


def test_the_world_says_so_by_default_and_sources_have_names() -> None:
    game = FakeGame()
    source = outcome_source("", game)
    assert isinstance(source, SimulatorOutcome)
    assert source.judge() == NOTHING
    game.home()
    for _ in range(game.length):
        game.send(np.zeros(3, np.float32))
    assert source.judge() == Judgement(1.0, True, False, False)
    assert isinstance(outcome_source("key", FakeRobot()), KeyOutcome)
    assert outcome_source("", FakeRobot()) is None
    assert isinstance(outcome_source("none", game), NoOutcome)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("simulator", "no simulation"),
        ("classifier:runs/reward", r"steer label STORE --classifier runs/reward"),
        ("oracle", "no such source"),
    ],
)
def test_sources_that_cannot_be_are_refused(name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        outcome_source(name, FakeRobot())


def test_an_episode_ends_after_its_time_and_the_next_begins() -> None:
    bench = Bench(LoopConfig(episodes=3, episode_s=0.5))
    summary = bench.loop.run()
    assert bench.stopped_by() == ["limit"] * 3
    assert [end.truncated for end in bench.sink.ends] == [True] * 3
    assert [end.success for end in bench.sink.ends] == [None] * 3
    assert (summary.episodes, summary.sent, summary.successes) == (3, 30, None)


def test_a_simulation_that_has_not_succeeded_in_an_episodes_time_has_failed() -> None:
    bench = Bench(LoopConfig(episodes=2, episode_s=0.5), FakeGame(length=100))
    summary = bench.loop.run()
    assert [(end.success, end.success_source, end.truncated) for end in bench.sink.ends] == [
        (False, "simulator", True)
    ] * 2
    assert (summary.episodes, summary.successes) == (2, 0)


def test_where_nobody_is_asked_a_simulation_ends_without_a_label() -> None:
    bench = Bench(LoopConfig(episodes=1), FakeGame(), NoOutcome())
    bench.loop.run()
    assert bench.stopped_by() == ["end"]
    assert [(end.success, end.success_source) for end in bench.sink.ends] == [(None, "")]


def test_an_episode_cut_short_by_the_end_of_the_run_has_not_failed() -> None:
    bench = Bench(LoopConfig(duration_s=0.5), FakeGame(length=100))
    bench.loop.run()
    assert [(end.success, end.success_source) for end in bench.sink.ends] == [(None, "")]


def test_a_person_who_says_nothing_in_an_episodes_time_has_said_nothing() -> None:
    bench = Bench(LoopConfig(episodes=1, episode_s=0.5), FakeGame(length=100), KeyOutcome())
    summary = bench.loop.run()
    assert [(end.success, end.success_source) for end in bench.sink.ends] == [(None, "")]
    assert (summary.episodes, summary.successes) == (1, None)


@pytest.mark.parametrize("reason", ["key", "signal", "stop"])
def test_who_stops_the_run_is_named(reason: str) -> None:
    bench = Bench(LoopConfig())
    bench.at(0.5, lambda: bench.loop.stop(reason, "SIGTERM" if reason == "signal" else ""))  # type: ignore[arg-type]  # parametrized
    summary = bench.loop.run()
    assert bench.stopped_by() == [reason]
    assert summary.stopped_by == ("SIGTERM" if reason == "signal" else reason)


def test_the_end_of_the_run_is_a_limit() -> None:
    bench = Bench(LoopConfig(duration_s=0.5))
    bench.loop.run()
    assert bench.stopped_by() == ["limit"]


def test_a_server_that_is_gone_for_good_ends_the_episode_as_a_fault() -> None:
    bench = Bench(LoopConfig())
    bench.at(0.5, lambda: setattr(bench.steering, "fail", UnavailableError("it died")))
    with pytest.raises(UnavailableError):
        bench.loop.run()
    (end,) = bench.sink.ends
    assert (end.info["stopped_by"], end.truncated, end.terminated, end.success) == ("fault", True, False, None)
    assert len(bench.sink.steps) >= 10
    assert bench.robot.held == 1


def test_chunks_that_stay_not_finite_end_the_run_for_safety() -> None:
    bench = Bench(LoopConfig())
    poison = np.full((4, 4, 3), np.nan, np.float32)
    bench.steering.change = lambda decision: replace(decision, candidates=poison)
    with pytest.raises(SafetyError, match="3 chunks in a row of policy fake-policy-1"):
        bench.loop.run()
    assert bench.stopped_by() == ["safety"]
    assert not np.any(bench.robot.sent)


def test_a_broken_robot_costs_the_last_step_of_its_episode_and_no_more() -> None:
    bench = Bench(LoopConfig())

    def observe() -> Frame:
        raise RobotError("a cable was pulled")

    bench.at(0.5, lambda: setattr(bench.robot, "observe", observe))
    with pytest.raises(RobotError, match="cable"):
        bench.loop.run()
    (end,) = bench.sink.ends
    assert (end.frame, end.info["stopped_by"]) == (None, "fault")
    episode = to_episode(bench.sink.steps, end, "policy")
    check_episode(episode, ROBOT)
    assert (len(bench.sink.steps), len(episode)) == (10, 9)
    moved = episode.observations["state"][:-1] + episode.actions
    np.testing.assert_allclose(moved, episode.observations["state"][1:], atol=1e-6)


def test_a_sensor_that_says_nonsense_does_not_spoil_what_was_recorded() -> None:
    bench = Bench(LoopConfig())
    nonsense = Frame({"state": np.full(3, np.nan, np.float32)}, 0.0)
    bench.at(0.5, lambda: setattr(bench.robot, "observe", lambda: nonsense))
    with pytest.raises(Exception, match="not finite"):
        bench.loop.run()
    check_episode(to_episode(bench.sink.steps, bench.sink.ends[0], "policy"), ROBOT)


def test_a_command_that_fails_is_no_step() -> None:
    bench = Bench(LoopConfig())

    def send(action: Array) -> Array:
        raise RobotError("overheated")

    bench.at(0.5, lambda: setattr(bench.robot, "send", send))
    with pytest.raises(RobotError, match="overheated"):
        bench.loop.run()
    assert (len(bench.sink.steps), bench.stopped_by()) == (10, ["fault"])
