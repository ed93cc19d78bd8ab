"""One episode: pairing of base and steered, what is recorded, and which seeds the engine gets."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from steer.data.episode import check_episode
from steer.decision import Decision, Request
from steer.errors import ConfigError
from steer.evaluation.rollout import RolloutSettings, decision_seed, rollout
from steer.evaluation.setup import Bench
from steer.evaluation.tuning import as_base
from tests.evaluation.fakes import LIMIT, build
from tests.fakes import ROBOT

STEERED = RolloutSettings(num_samples=8, temperature=1.0, execute=2)


class Listening:
    """A steering that remembers requests and decisions."""

    def __init__(self, bench: Bench) -> None:
        self._steering = bench.steering
        self.observation, self.horizon = bench.steering.observation, bench.steering.horizon
        self.requests: list[Request] = []
        self.decisions: list[Decision] = []

    def infer(self, request: Request) -> Decision:
        self.requests.append(request)
        self.decisions.append(self._steering.infer(request))
        return self.decisions[-1]

    def close(self) -> None: ...


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = build()
    yield made
    made.close()


def test_base_and_steered_start_alike_and_share_candidate_0(bench: Bench) -> None:
    base, steered = Listening(bench), Listening(bench)
    rollout(bench.environment, base, 5, as_base(STEERED))
    rollout(bench.environment, steered, 5, STEERED)
    first, second = base.requests[0].observation.arrays["state"], steered.requests[0].observation.arrays["state"]
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(base.decisions[0].candidates[0], steered.decisions[0].candidates[0])
    assert base.decisions[0].candidates.shape[0] == 1
    assert not base.decisions[0].scores.size


def test_every_decision_has_its_own_seed_from_the_episodes(bench: Bench) -> None:
    listening = Listening(bench)
    rollout(bench.environment, listening, 5, STEERED)
    seeds = [request.seed for request in listening.requests]
    assert seeds == [decision_seed(5, index) for index in range(len(seeds))]
    assert len({decision_seed(episode, index) for episode in range(50) for index in range(50)}) == 2500
    assert all(0 <= decision_seed(episode, 0) < 2**63 for episode in range(50))


def test_the_same_seed_repeats_the_episode_and_another_does_not(bench: Bench) -> None:
    once, again, other = (rollout(bench.environment, bench.steering, seed, STEERED) for seed in (5, 5, 6))
    np.testing.assert_array_equal(once.episode.actions, again.episode.actions)
    assert not np.array_equal(once.episode.observations["state"][0], other.episode.observations["state"][0])


def test_the_episode_is_complete_and_fits_the_robot(bench: Bench) -> None:
    played = rollout(bench.environment, bench.steering, 5, STEERED)
    episode = played.episode
    check_episode(episode, ROBOT)
    assert len(episode) == played.length
    assert episode.success is played.success
    assert episode.success_source == "simulator"
    assert episode.task.instruction == "reach the point"
    assert episode.info["seed"] == 5
    assert (episode.info["policy_version"], episode.info["critic_version"]) == ("fake-policy-1", "fake-critic-1")
    assert (episode.info["stopped_by"], episode.info["origins"], "versions" in episode.info) == (
        "end",
        ["policy"],
        False,
    )
    np.testing.assert_array_equal(episode.steps["scored"], episode.actions)
    assert not episode.steps["intervention"].any()
    moved = episode.observations["state"][:-1] + episode.actions
    np.testing.assert_allclose(moved, episode.observations["state"][1:], atol=1e-6)


def test_chunks_of_e_actions_are_executed(bench: Bench) -> None:
    played = rollout(bench.environment, bench.steering, 5, STEERED)
    steps = np.arange(played.length)
    np.testing.assert_array_equal(played.episode.steps["chunk_start"], steps % 2 == 0)
    np.testing.assert_array_equal(played.episode.steps["decision"], steps // 2)
    assert [decision.step for decision in played.decisions] == list(range(0, played.length, 2))


def test_the_base_has_no_values_and_calls_its_source_policy(bench: Bench) -> None:
    played = rollout(bench.environment, bench.steering, 5, as_base(STEERED))
    assert np.isnan(played.episode.steps["value"]).all()
    assert played.episode.source == "policy"
    np.testing.assert_array_equal(played.episode.steps["proposed"], played.episode.actions)


def test_an_episode_ends_at_success_or_at_the_limit(bench: Bench) -> None:
    played = [rollout(bench.environment, bench.steering, seed, as_base(STEERED)) for seed in range(20)]
    assert {one.success for one in played} == {True, False}
    for one in played:
        assert one.episode.terminated is one.success
        assert one.episode.truncated is not one.success
        assert one.success or one.length == LIMIT


def test_pictures_come_at_the_asked_steps_and_at_the_end() -> None:
    bench = build(render_mode="rgb_array")
    played = rollout(bench.environment, bench.steering, 5, RolloutSettings(1, execute=2, render_every=4))
    bench.close()
    assert played.frames is not None
    assert len(played.frames) == 1 + -(-played.length // 4)
    assert played.frames.shape[1:] == (32, 48, 3)


@pytest.mark.parametrize("wrong", [{"num_samples": 0}, {"execute": -1}, {"render_every": -2}])
def test_impossible_settings_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        RolloutSettings(**wrong)
