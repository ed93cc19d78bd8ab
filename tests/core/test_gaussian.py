"""The Gaussian refiner gives a critic something to choose from where a policy has one answer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from steer import registry
from steer.action import ActionAxis
from steer.client.steering_client import SteeringClient
from steer.decision import Request
from steer.engine import Engine
from steer.environment import Environment
from steer.errors import ConfigError, UnsupportedError
from steer.evaluation.evaluate import EvaluationSettings, evaluate
from steer.evaluation.rollout import RolloutSettings
from steer.evaluation.runner import Runner
from steer.evaluation.setup import Bench, Facts
from steer.gaussian import GaussianRefiner, create
from steer.noise import candidate_noise
from steer.observation import Observation
from steer.refiner import Refiner
from steer.server.server import ServerConfig, running
from steer.spec import Array
from steer.steering import LocalSteering
from tests.evaluation.fakes import ENV_ID
from tests.fakes import ACTION, ROBOT, FakeCritic, FakePolicy, H

SEEDS = np.array([3, 11], np.int64)
ZEROS = np.zeros((2, 1, H, 3), np.float32)
GRIPPER = replace(ACTION, axes=(*ACTION.axes[:2], ActionAxis("gripper", "1", 0.0, 1.0)))


class OneAnswer(FakePolicy):
    """Deterministic: every call gives the chunk that leads to the origin."""

    def __init__(self) -> None:
        super().__init__(stochastic=False, temperature=False)

    def sample(
        self, context: Array, num_samples: int, seeds: Array, temperature: float = 1.0, committed: Array | None = None
    ) -> Array:
        return super().sample(context, num_samples, seeds, 0.0, committed)


def refine(
    candidates: Array = ZEROS, executed: int = H, committed: int = 0, seeds: Array = SEEDS, **options: str
) -> Array:
    refiner: Refiner = create(FakeCritic(prefixes=(2, H)), "", options)
    return refiner.refine(None, None, candidates, seeds, executed, committed)[0]


def request(seed: int = 0, samples: int = 1, **changes: object) -> Request:
    state = np.array([[0.02, 0.05, -0.04], [0.03, 0.05, -0.05]], np.float32)
    made = Request(Observation({"state": state}, np.ones(2, np.bool_)), seed=seed, num_samples=samples)
    return replace(made, **changes)


def test_scale_is_in_units_of_the_bounds() -> None:
    added = refine(count="4000", scale="0.2")
    assert added.shape == (2, 4000, H, 3)
    np.testing.assert_allclose(added[:, :, 0].std(axis=1), 0.2 * 0.1, rtol=0.1)
    np.testing.assert_allclose(added[:, :, 0].mean(axis=1), 0.0, atol=0.002)


def test_candidates_of_few_are_a_prefix_of_many_and_rows_stand_alone() -> None:
    many = refine(count="32")
    np.testing.assert_array_equal(many[:, :8], refine(count="8"))
    np.testing.assert_array_equal(many[1:], refine(ZEROS[1:], count="32", seeds=SEEDS[1:]))
    assert not np.array_equal(many[0], many[1])
    assert len(np.unique(many[0, :, 0, 0])) == 32


def test_the_noise_is_not_the_policys() -> None:
    drawn = candidate_noise(SEEDS, 8, (H, 3)) * 0.01
    assert not np.allclose(refine(count="8", per="step"), drawn)


def test_a_chunk_moves_as_one_unless_each_step_shall() -> None:
    together, apart = refine(count="4"), refine(count="4", per="step")
    np.testing.assert_array_equal(together, np.repeat(together[:, :, :1], H, axis=2))
    assert not np.allclose(apart, apart[:, :, :1])


def test_committed_steps_and_what_is_not_scored_stay() -> None:
    start = np.random.default_rng(0).uniform(-0.05, 0.05, (2, 3, H, 3)).astype(np.float32)
    before = start.copy()
    added = refine(start, executed=2, committed=1, count="7")
    of = start[:, np.arange(7) % 3]
    np.testing.assert_array_equal(added[:, :, 0], of[:, :, 0])
    np.testing.assert_array_equal(added[:, :, 2:], of[:, :, 2:])
    assert (added[:, :, 1] != of[:, :, 1]).all()
    np.testing.assert_array_equal(start, before)


def test_everything_stays_in_bounds() -> None:
    added = refine(np.full_like(ZEROS, 0.1), count="64", scale="3")
    ACTION.validate(added)
    assert (added == ACTION.low).any()


def test_a_gripper_stays_unless_it_is_named() -> None:
    critic = FakeCritic(GRIPPER)
    chunk = np.full((2, 1, H, 3), 0.05, np.float32)
    kept = create(critic, "", {}).refine(None, None, chunk, SEEDS, H, 0)[0]
    moved = create(critic, "", {"axes": "gripper"}).refine(None, None, chunk, SEEDS, H, 0)[0]
    assert (kept[..., 2] == chunk[:, :, :, 2]).all()
    assert (kept[..., :2] != 0.05).all()
    assert (moved[..., 2] != 0.05).all()
    assert (moved[..., :2] == 0.05).all()


def test_the_first_action_alone_moves_for_a_critic_that_scores_no_more() -> None:
    critic = FakeCritic()
    critic.spec = replace(critic.spec, scores="first_action", prefixes=(1,))
    added, origins = create(critic, "", {}).refine(None, None, ZEROS, SEEDS, H, 0)
    assert (added[:, :, 0] != 0).all()
    assert (added[:, :, 1:] == 0).all()
    assert origins == ("gaussian",) * 8


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"count": "0"}, "positive"),
        ({"scale": "-1"}, "positive"),
        ({"scale": "nan"}, "positive"),
        ({"scale": "wide"}, "expected a number"),
        ({"axes": "dx,dw"}, r"axes \['dw'\]"),
        ({"per": "minute"}, "chunk or step"),
        ({"sigma": "1"}, r"no options \['sigma'\]"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        create(FakeCritic(), "", options)


def test_an_action_of_nothing_but_a_gripper_has_to_be_named() -> None:
    critic = FakeCritic(replace(ACTION, axes=(ActionAxis("gripper", "1", 0.0, 1.0),)))
    with pytest.raises(ConfigError, match="none would move"):
        create(critic, "", {})


def test_nothing_left_to_move_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="nothing is left"):
        refine(executed=2, committed=2)


def test_it_is_registered() -> None:
    refiner = registry.refiner("gaussian:?count=3&scale=0.2", FakeCritic())
    assert isinstance(refiner, GaussianRefiner)
    assert refiner.refine(None, None, ZEROS, SEEDS, H, 0)[1] == ("gaussian",) * 3


def test_a_deterministic_policy_is_steered_with_one_sample() -> None:
    critic = FakeCritic()
    engine = Engine(OneAnswer(), critic, [GaussianRefiner(critic.spec, count=32, scale=0.15)])
    decision = engine.decide([request()])[0]
    assert decision.origins == ("policy",) + ("gaussian",) * 32
    assert decision.chosen > 0
    assert decision.values.max() > decision.values[0]
    np.testing.assert_array_equal(decision.candidates[0], Engine(OneAnswer()).decide([request()])[0].chunk)
    with pytest.raises(UnsupportedError, match="deterministic policy"):
        engine.decide([request(samples=8)])


def test_committed_steps_lead_every_neighbour() -> None:
    critic = FakeCritic()
    committed = np.full((1, 3), 0.05, np.float32)
    engine = Engine(OneAnswer(), critic, [GaussianRefiner(critic.spec)])
    decision = engine.decide([request(committed=committed, execute=3)])[0]
    np.testing.assert_array_equal(decision.candidates[:, 0], np.repeat(committed, 9, axis=0))
    assert len(np.unique(decision.candidates[:, 1, 0])) == 9


def test_through_a_server_it_is_as_in_process() -> None:
    critic = FakeCritic()
    engine = Engine(OneAnswer(), critic, [GaussianRefiner(critic.spec, count=6)])
    with running(engine, ServerConfig(address="127.0.0.1:0", warm_samples=1)) as address:
        client = SteeringClient(address, ROBOT)
        decision, here = client.infer(request(seed=5)), engine.decide([request(seed=5)])[0]
        client.close()
    np.testing.assert_array_equal(decision.candidates, here.candidates)
    assert (decision.chosen, decision.origins) == (here.chosen, here.origins)


def build() -> Bench:
    """An evaluation of the deterministic policy, as a worker builds it."""
    environment = Environment(ENV_ID, {})
    policy, critic = OneAnswer(), FakeCritic(prefixes=(2, H))
    engine = Engine(policy, critic, [GaussianRefiner(critic.spec, count=16, scale=0.2)])
    facts = Facts(environment.robot, policy.version, critic.version, critic.spec.gamma, critic.spec.prefixes)
    return Bench(environment, LocalSteering(engine, environment.robot), facts)


def test_an_evaluation_with_one_sample_steers_by_the_neighbours_alone() -> None:
    settings = EvaluationSettings(RolloutSettings(num_samples=1, execute=2), episodes=12, seed=40)
    with Runner(build, workers=1) as runner:
        played = evaluate(runner, settings, lambda name, total: lambda done, of: None)
    assert {len(decision.values) for rollout in played.steered for decision in rollout.decisions} == {17}
    assert {len(decision.values) for rollout in played.base for decision in rollout.decisions} == {1}
    assert played.result.difference > 0.3
