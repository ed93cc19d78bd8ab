"""The broker: what is asked when, what takes effect when, and what is never let through. No time passes in these tests."""

from __future__ import annotations

import numpy as np
import pytest

from steer.client.broker import Action, BrokerConfig, ChunkBroker
from steer.errors import ConfigError, SpecError, UnavailableError
from steer.observation import Observation, Task
from steer.wire import Execution
from tests.client.doubles import FakeClock, FakeSteering, InlinePool, ManualPool

RATE_HZ = 20.0
OVERLAP = BrokerConfig(Execution(num_samples=4, execute=3), committed=1)
WAITING = BrokerConfig(Execution(num_samples=4, execute=4), committed=0)


class Bench:
    """A broker, its clock, and a robot that stands at its tick."""

    def __init__(self, config: BrokerConfig, pool: ManualPool | InlinePool) -> None:
        self.steering, self.clock, self.pool = FakeSteering(), FakeClock(), pool
        self.broker = ChunkBroker(self.steering, config, RATE_HZ, self.clock.now, pool=pool)
        self.broker.reset(episode=1, seed=0)
        self.tick = -1

    def observation(self) -> Observation:
        return Observation.single({"state": np.full(3, self.tick, np.float32)}, self.clock.now())

    def step(self, seconds: float = 1 / RATE_HZ) -> Action | None:
        self.tick += 1
        self.clock.time += seconds
        return self.broker.action(self.tick, self.observation, Task())

    def steps(self, count: int) -> list[Action | None]:
        return [self.step() for _ in range(count)]


def test_from_standstill_nothing_is_committed_and_the_whole_prefix_is_new() -> None:
    bench = Bench(OVERLAP, ManualPool())
    assert bench.step() is None
    bench.pool.answer()
    request = bench.steering.requests[0]
    assert (request.num_committed, request.execute, request.seed) == (0, 4, 0)
    actions = [bench.step() for _ in range(3)]
    chunk = actions[0].decision.chunk
    np.testing.assert_array_equal([a.values for a in actions], chunk[:3])
    assert [a.first for a in actions] == [True, False, False]


def test_the_next_chunk_is_asked_d_ticks_early_and_takes_effect_after_the_committed_actions() -> None:
    bench = Bench(OVERLAP, ManualPool())
    bench.step()
    bench.pool.answer()
    actions = [bench.step() for _ in range(4)]  # the fourth is committed in the request of the same tick
    assert len(bench.pool.waiting) == 1
    bench.pool.answer()
    request = bench.steering.requests[1]
    np.testing.assert_array_equal(request.committed, actions[3].values[None])
    assert (request.execute, request.seed) == (3, 1)
    assert request.observation.arrays["state"][0, 0] == bench.tick
    new = [bench.step() for _ in range(3)]
    np.testing.assert_array_equal([a.values for a in new], new[0].decision.chunk[1:4])
    np.testing.assert_array_equal(new[0].decision.chunk[0], actions[3].values)
    assert bench.broker.counts["late"] == 0


def test_a_steady_run_never_holds_and_every_request_carries_its_place() -> None:
    bench = Bench(OVERLAP, InlinePool())
    actions = [bench.step() for _ in range(50)]
    assert [a is None for a in actions] == [True] + [False] * 49
    ticks = [step for _, step in bench.steering.places]
    assert ticks[:4] == [0, 4, 7, 10]
    assert {episode for episode, _ in bench.steering.places} == {1}


def test_an_early_answer_waits_for_the_committed_actions() -> None:
    bench = Bench(BrokerConfig(Execution(execute=2), committed=2), InlinePool())
    actions = [bench.step() for _ in range(7)][1:]
    first = actions[0].decision
    np.testing.assert_array_equal([a.values for a in actions[:4]], first.chunk)
    second = actions[4].decision
    assert second is not first
    np.testing.assert_array_equal(second.chunk[:2], first.chunk[2:])
    np.testing.assert_array_equal([a.values for a in actions[4:]], second.chunk[2:])


def test_while_an_answer_is_late_there_is_no_action_and_afterwards_all_of_it_runs() -> None:
    bench = Bench(OVERLAP, ManualPool())
    bench.step()
    bench.pool.answer()
    for _ in range(4):
        bench.step()
    assert [bench.step(), bench.step()] == [None, None]
    bench.pool.answer()
    late = [bench.step() for _ in range(3)]
    np.testing.assert_array_equal([a.values for a in late], late[0].decision.chunk[1:4])
    assert bench.broker.counts["late"] == 1


def test_an_answer_to_the_last_episode_is_foreign() -> None:
    bench = Bench(OVERLAP, ManualPool())
    bench.step()
    bench.broker.reset(episode=2, seed=100)
    bench.pool.answer()
    assert bench.step() is None
    assert bench.broker.counts["foreign"] == 1
    bench.pool.answer()
    assert bench.step() is not None
    assert bench.steering.requests[-1].seed == 100


def test_actions_of_the_last_episode_do_not_run_in_the_next() -> None:
    bench = Bench(OVERLAP, InlinePool())
    bench.step()
    assert bench.step() is not None
    bench.broker.reset(episode=2, seed=0)
    assert bench.step() is None


@pytest.mark.parametrize(("age_s", "sent"), [(0.9, True), (1.1, False)])
def test_an_action_older_than_max_stale_s_is_not_let_through(age_s: float, sent: bool) -> None:
    bench = Bench(OVERLAP, ManualPool())
    bench.step()
    bench.pool.answer()
    assert (bench.step(seconds=age_s) is not None) == sent
    assert bench.broker.counts["stale"] == (not sent)


def test_the_age_is_that_of_the_frame_not_of_the_request() -> None:
    bench = Bench(OVERLAP, InlinePool())
    bench.tick = 0
    old = Observation.single({"state": np.zeros(3, np.float32)}, bench.clock.now() - 5.0)  # a camera that stalled
    assert bench.broker.action(0, lambda: old, Task()) is None
    assert bench.broker.action(1, lambda: old, Task()) is None
    assert bench.broker.counts["stale"] == 1


def test_a_plan_is_dropped_when_it_becomes_stale_in_the_middle() -> None:
    bench = Bench(OVERLAP, ManualPool())
    bench.step()
    bench.pool.answer()
    assert bench.step() is not None
    assert bench.step(seconds=2.0) is None


def test_an_answer_whose_committed_actions_never_ran_is_foreign() -> None:
    bench = Bench(BrokerConfig(Execution(num_samples=4, execute=2), committed=2), ManualPool())
    bench.step()
    bench.pool.answer()
    for _ in range(3):
        bench.step()  # in the third a request is made with this action and the next one committed
    assert len(bench.pool.waiting) == 1
    assert bench.step(seconds=2.0) is None  # the plan is stale: the next one does not run
    bench.pool.answer()
    assert bench.step() is None
    assert (bench.broker.counts["stale"], bench.broker.counts["foreign"]) == (1, 1)
    bench.pool.answer()
    assert bench.steering.requests[-1].committed is None
    assert bench.step() is not None


def test_synchronous_waits_and_never_holds() -> None:
    bench = Bench(WAITING, InlinePool())
    actions = [bench.step() for _ in range(9)]
    assert all(action is not None for action in actions)
    assert [a.first for a in actions] == [True, False, False, False] * 2 + [True]
    assert all(request.committed is None for request in bench.steering.requests)


def test_a_server_that_is_gone_is_asked_again_after_a_while_and_a_run_goes_on() -> None:
    bench = Bench(OVERLAP, InlinePool())
    bench.steering.fail = UnavailableError("gone")
    asked = []
    for _ in range(21):
        assert bench.step() is None
        asked.append(len(bench.steering.requests))
    assert asked[0] == 1
    assert asked[-1] == 2  # 1 s later: retry_s is 0.5 after the failure was noticed
    assert str(bench.broker.failing) == "gone"
    bench.steering.fail = None
    assert any(bench.step() is not None for _ in range(20))
    assert bench.broker.failing is None


def test_the_run_ends_when_there_was_no_answer_for_too_long() -> None:
    bench = Bench(BrokerConfig(Execution(execute=3), 1, give_up_s=3.0), InlinePool())
    bench.steering.fail = UnavailableError("gone")
    with pytest.raises(UnavailableError, match="no answer for 3 s, the run ends: gone"):
        bench.steps(200)
    assert 60 <= bench.tick <= 85


def test_what_asking_again_cannot_mend_ends_the_run() -> None:
    bench = Bench(OVERLAP, InlinePool())
    bench.steering.fail = SpecError("state is not finite")
    bench.step()
    with pytest.raises(SpecError, match="state is not finite"):
        bench.step()


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (BrokerConfig(Execution(execute=4), committed=1), "1 committed and 4 executed steps of a chunk of 4"),
        (BrokerConfig(Execution(execute=1), committed=2), "at least as many as are committed"),
        (BrokerConfig(Execution(execute=3), committed=1, max_stale_s=0.2), "max_stale_s is 0.2"),
    ],
)
def test_settings_that_cannot_work_are_refused(config: BrokerConfig, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        ChunkBroker(FakeSteering(), config, RATE_HZ, FakeClock().now, pool=InlinePool())
