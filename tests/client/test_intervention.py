"""Somebody takes over in mid-chunk: what is sent, what is flagged, and what the policy is asked afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from steer.client.broker import BrokerConfig
from steer.client.loop import ControlLoop, LoopConfig
from steer.client.recorder import to_episode
from steer.client.teleoperation import KeyboardIntervener
from steer.data.episode import check_episode
from steer.intervention import Takeover
from steer.robot import Frame
from steer.spec import Array
from steer.wire import Execution
from tests.client.doubles import FakeClock, FakeSteering, InlinePool, ManualPool
from tests.client.test_loop import Sink
from tests.fakes import ROBOT, FakeRobot

HAND = np.array([0.07, -0.07, 0.03], np.float32)


@dataclass
class Script:
    """Drives at the ticks that are marked."""

    ticks: Sequence[bool]
    action: Array | None
    name: str = "script"
    tick: int = -1

    def begin(self) -> None:
        self.tick = -1

    def act(self, frame: Frame, last: Array | None) -> Takeover | None:
        self.tick += 1
        return Takeover(self.action) if self.ticks[self.tick] else None


class Bench:
    def __init__(
        self, ticks: Sequence[bool], action: Array | None = HAND, robot: FakeRobot | None = None, committed: int = 1
    ) -> None:
        self.clock, self.steering, self.sink, self.pool = FakeClock(), FakeSteering(), Sink(), InlinePool()
        self.robot = robot or FakeRobot()
        self.robot.now = self.clock.now
        self.loop = ControlLoop(
            self.robot,
            self.steering,
            BrokerConfig(Execution(num_samples=4, execute=4 - committed), committed=committed, max_stale_s=0.5),
            LoopConfig(episodes=1, episode_s=len(ticks) / 20),
            recorder=self.sink,
            clock=self.clock,
            pool=self.pool,
            intervener=Script(ticks, action),
        )


def marked(*spans: tuple[int, int], of: int = 30) -> list[bool]:
    return [any(first <= tick < last for first, last in spans) for tick in range(of)]


def test_it_drives_in_mid_chunk_and_the_policy_goes_on_from_fresh_frames() -> None:
    ticks = marked((7, 15))
    bench = Bench(ticks)
    with capture_logs() as logs:
        summary = bench.loop.run()
    for tick, step in enumerate(bench.sink.steps):
        assert step.intervention == ticks[tick]
        if ticks[tick]:
            np.testing.assert_array_equal(bench.robot.sent[tick], HAND)
            assert step.choice is None
    assert (summary.interventions, summary.stale_sent) == (8, 0)
    asked = {tick: request for request, (_, tick) in zip(bench.steering.requests, bench.steering.places, strict=True)}
    assert not set(range(7, 15)) & set(asked)
    # Nothing was planned, so nothing is committed, and the newest frame is that of the tick at which it was given back.
    assert asked[15].committed is None
    np.testing.assert_array_equal(asked[15].observation.arrays["state"][-1], bench.sink.steps[15].frame.arrays["state"])
    said = [line["event"] for line in logs if line["event"] in ("taken over", "given back", "holding: no fresh chunk")]
    assert said == ["taken over", "given back"]


def test_the_answer_to_a_question_from_before_is_never_executed() -> None:
    bench = Bench(marked((5, 9)))
    pool = ManualPool()
    loop = ControlLoop(
        bench.robot,
        bench.steering,
        BrokerConfig(Execution(num_samples=4, execute=3), committed=1),
        LoopConfig(episodes=1, episode_s=1.0),
        recorder=bench.sink,
        clock=bench.clock,
        pool=pool,
        intervener=Script(marked((5, 9)), HAND),
    )
    bench.clock.at(100.05, pool.answer)  # of tick 0: runs at ticks 1 to 4, and asks again at tick 4
    bench.clock.at(100.60, pool.answer)  # the one of tick 4 comes when it was given back
    loop.run()
    assert [step.choice is not None for step in bench.sink.steps[:5]] == [False, True, True, True, True]
    assert all(step.choice is None for step in bench.sink.steps[5:])
    assert loop._broker.counts["foreign"] == 1


@settings(max_examples=25, deadline=None)
@given(st.lists(st.booleans(), min_size=5, max_size=60), st.sampled_from([0, 1, 2]))
def test_no_step_that_the_policy_decided_is_flagged_and_no_flagged_one_is_its(
    ticks: list[bool], committed: int
) -> None:
    bench = Bench(ticks, committed=committed)
    summary = bench.loop.run()
    episode = to_episode(bench.sink.steps, bench.sink.ends[0], "policy")
    check_episode(episode, ROBOT)
    decided = np.isfinite(episode.steps["scored"]).all(1)
    flagged, held = episode.steps["intervention"], episode.steps["held"]
    np.testing.assert_array_equal(flagged, ticks)
    np.testing.assert_array_equal(decided, episode.steps["decision"] >= 0)
    assert not (decided & flagged).any()
    np.testing.assert_array_equal(decided | flagged | held, True)
    np.testing.assert_array_equal(episode.actions[decided], episode.steps["scored"][decided])
    assert summary.stale_sent == 0
    assert episode.info["intervention_steps"] == sum(ticks) == summary.interventions
    # The first step that the policy decides after an intervention begins a chunk of its own.
    after = [
        t
        for t in np.flatnonzero(decided)
        if not decided[:t].any() or flagged[np.flatnonzero(decided[:t])[-1] : t].any()
    ]
    assert episode.steps["chunk_start"][after].all()


def test_the_same_safety_holds_for_who_takes_over() -> None:
    robot = FakeRobot(replace(ROBOT, max_step=(0.002,) * 3))
    summary = Bench(marked((2, 30)), np.full(3, 9.0, np.float32), robot).loop.run()
    assert summary.out_of_bounds == 28
    assert np.abs(np.diff(robot.sent, axis=0)).max() <= 0.002 + 1e-6
    assert np.max(robot.sent) <= 0.1


def test_who_takes_over_may_stand_still() -> None:
    bench = Bench(marked((10, 20)), None)
    bench.loop.run()
    assert not np.any(bench.robot.sent[10:20])
    flags = to_episode(bench.sink.steps, bench.sink.ends[0], "policy").steps
    assert flags["intervention"][10:20].all()
    assert not flags["held"][10:20].any()


def keyboard(robot: FakeRobot, *keys: str) -> KeyboardIntervener:
    intervener = KeyboardIntervener(robot.spec)
    for key in keys:
        intervener.press(key)
    return intervener


def drive(intervener: KeyboardIntervener, last: Array | None = None) -> Takeover | None:
    return intervener.act(Frame({}, 0.0), last)


def test_keys_push_axes_while_they_are_pressed() -> None:
    robot = FakeRobot()
    intervener = keyboard(robot, "w", "t", "d", "r", "?")
    pushed = drive(intervener)
    assert pushed is not None
    np.testing.assert_allclose(pushed.action, [0, -0.05, 0.05])
    still = drive(intervener)
    assert still is not None
    np.testing.assert_array_equal(still.action, np.zeros(3))
    intervener.press("t")
    assert drive(intervener) is None


def test_a_new_episode_is_the_policys() -> None:
    intervener = keyboard(FakeRobot(), "t", "w")
    assert drive(intervener) is not None
    intervener.press("w")
    intervener.begin()
    assert drive(intervener) is None


def test_an_axis_that_is_kept_goes_to_its_end_and_stays() -> None:
    intervener = keyboard(FakeRobot(replace(ROBOT, keep=("dz",))), "t", "f")
    pushed = drive(intervener)
    assert pushed is not None
    np.testing.assert_allclose(pushed.action, [0, 0, -0.1])
    kept = drive(intervener, pushed.action)
    assert kept is not None
    np.testing.assert_allclose(kept.action, [0, 0, -0.1])


def test_positions_move_by_a_little_from_the_last_command_and_wait_for_one() -> None:
    robot = replace(ROBOT, hold="repeat")
    intervener = keyboard(FakeRobot(robot), "t", "w")
    assert drive(intervener) == Takeover(None)
    intervener.press("w")
    pushed = drive(intervener, np.array([0.05, 0, 0], np.float32))
    assert pushed is not None
    np.testing.assert_allclose(pushed.action, [0.052, 0, 0])


def test_the_keys_are_explained() -> None:
    assert KeyboardIntervener(ROBOT).explain() == "t takes over and gives back; dx w/s, dy a/d, dz r/f"
