"""The engine: K = 1 is the policy, what is scored is what runs, the choice follows the rule, the record is complete."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from steer.action import ActionAxis
from steer.decision import Request
from steer.engine import Engine
from steer.errors import SpecError, UnsupportedError
from steer.observation import Observation
from steer.selection import Selection
from steer.steering import LocalSteering
from tests.core.toys import ACTION, ROBOT, ToyCritic, ToyPolicy, observe


def request(**changes) -> Request:
    return replace(Request(observe(0.1, 0.2), seed=7, num_samples=8), **changes)


def test_one_sample_is_the_policy_bit_for_bit() -> None:
    policy = ToyPolicy()
    alone = policy.sample(np.array([[0.1, 0.2]], np.float32), 1, np.array([7]))[0, 0]
    for engine in (Engine(policy), Engine(policy, ToyCritic())):
        decision = engine.decide([request(num_samples=1)])[0]
        assert np.array_equal(decision.chunk, np.clip(alone, -1, 1))
        assert decision.critic_version == ""


def test_without_a_critic_candidate_zero_is_chosen() -> None:
    assert Engine(ToyPolicy()).decide([request()])[0].chosen == 0


def test_the_best_by_the_mean_is_chosen_and_recorded() -> None:
    critic = ToyCritic()
    decision = Engine(ToyPolicy(), critic).decide([request()])[0]
    assert decision.scores.shape == (2, 8)
    assert decision.chosen == int(np.argmax(decision.scores.mean(axis=0)))
    assert np.array_equal(decision.actions, decision.candidates[decision.chosen])
    assert decision.origins == ("policy",) * 8
    assert set(decision.timings_s) == {"propose", "encode", "refine", "score", "select"}
    assert (decision.policy_version, decision.critic_version) == ("toy-policy", "toy-critic")


def test_observations_are_encoded_once_whatever_k() -> None:
    policy, critic = ToyPolicy(), ToyCritic()
    Engine(policy, critic).decide([request(num_samples=32)])
    assert (policy.encodes, critic.encodes) == (1, 1)


def test_only_the_executed_prefix_is_scored() -> None:
    critic = ToyCritic(prefixes=(3,))
    decision = Engine(ToyPolicy(), critic).decide([request(execute=3)])[0]
    assert critic.scored[0].shape == (1, 8, 3, 2)
    assert decision.actions.shape == (3, 2)


def test_a_first_action_critic_sees_one_step() -> None:
    critic = ToyCritic(scores="first_action")
    Engine(ToyPolicy(), critic).decide([request()])
    assert critic.scored[0].shape == (1, 8, 1, 2)


def test_committed_steps_lead_every_candidate_and_are_scored() -> None:
    critic = ToyCritic()
    committed = np.array([[0.5, -0.5]], np.float32)
    decision = Engine(ToyPolicy(), critic).decide([request(committed=committed, execute=3)])[0]
    assert np.array_equal(decision.candidates[:, 0], np.repeat(committed, 8, axis=0))
    assert critic.scored[0].shape[2] == 4
    assert np.array_equal(decision.actions, decision.chunk[1:4])


def test_a_prefix_the_critic_never_saw_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"trained to score \[3, 4\] steps, 2"):
        Engine(ToyPolicy(), ToyCritic()).decide([request(execute=2)])


def test_steps_beyond_the_horizon_are_refused() -> None:
    with pytest.raises(SpecError, match="do not fit a chunk of 4"):
        Engine(ToyPolicy(), ToyCritic()).decide([request(execute=5)])


def test_candidates_are_clipped_before_scoring_and_counted() -> None:
    critic = ToyCritic()
    decision = Engine(ToyPolicy(scale=5.0), critic).decide([request()])[0]
    assert np.abs(critic.scored[0]).max() <= 1.0
    assert decision.clipped == int((np.abs(decision.candidates) == 1.0).sum())
    assert decision.clipped > 0


def test_candidates_that_are_not_finite_are_dropped_and_never_chosen() -> None:
    decision = Engine(ToyPolicy(spoil=(0, 3)), ToyCritic()).decide([request()])[0]
    assert decision.dropped == 2
    assert decision.candidates.shape[0] == 6
    assert np.isfinite(decision.chunk).all()


def test_infinity_is_dropped_like_nan_not_clipped_to_a_bound() -> None:
    decision = Engine(ToyPolicy(spoil=(3,), spoilt=np.inf), ToyCritic()).decide([request()])[0]
    assert (decision.dropped, decision.clipped) == (1, 0)
    assert decision.candidates.shape[0] == 7


def test_nothing_finite_is_an_error() -> None:
    with pytest.raises(SpecError, match="every candidate"):
        Engine(ToyPolicy(spoil=tuple(range(8))), ToyCritic()).decide([request()])


def test_scores_that_are_not_finite_are_an_error() -> None:
    critic = ToyCritic()
    critic.score = lambda context, actions: np.full((2, 1, 8), np.nan, np.float32)
    with pytest.raises(SpecError, match="scores are not finite"):
        Engine(ToyPolicy(), critic).decide([request()])


def test_a_batch_equals_its_singles() -> None:
    engine = Engine(ToyPolicy(), ToyCritic())
    requests = [request(seed=s, observation=observe(0.1 * s, 0.0)) for s in range(5)]
    together = engine.decide(requests)
    for one, batched in zip(requests, together, strict=True):
        assert np.allclose(engine.decide([one])[0].chunk, batched.chunk, atol=1e-6)


def test_mixed_buckets_are_refused() -> None:
    with pytest.raises(SpecError, match="2 different buckets"):
        Engine(ToyPolicy(), ToyCritic()).decide([request(), request(num_samples=4)])


def test_rules_that_ask_the_critic_are_not_mixed_with_rules_that_do_not() -> None:
    with pytest.raises(SpecError, match="2 different buckets"):
        Engine(ToyPolicy(), ToyCritic()).decide([request(selection=Selection(choose="first")), request()])


def test_a_first_action_critic_cannot_choose_behind_committed_steps() -> None:
    committed = np.zeros((1, 2), np.float32)
    with pytest.raises(UnsupportedError, match="nothing to choose by"):
        Engine(ToyPolicy(), ToyCritic(scores="first_action")).decide([request(committed=committed, execute=3)])


@pytest.mark.parametrize("temperature", [-1.0, float("nan"), float("inf")])
def test_a_noise_scale_that_is_none_is_refused(temperature: float) -> None:
    with pytest.raises(UnsupportedError, match="negative or not finite"):
        Engine(ToyPolicy()).decide([request(temperature=temperature)])


@pytest.mark.parametrize("seed", [2**63, -(2**63) - 1])
def test_a_seed_that_does_not_fit_the_wire_is_refused_where_it_is_given(seed: int) -> None:
    with pytest.raises(SpecError, match="does not fit 64 bits"):
        request(seed=seed)


def test_a_state_that_is_nan_names_the_entry() -> None:
    with pytest.raises(SpecError, match=r"state: ee\.y = nan is not finite"):
        Engine(ToyPolicy()).decide([request(observation=observe(0.0, float("nan")))])


def test_a_missing_key_names_what_is_there() -> None:
    other = Observation.single({"pose": np.zeros(2, np.float32)})
    with pytest.raises(SpecError, match=r"lacks \['state'\]; it has \['pose'\]"):
        Engine(ToyPolicy()).decide([request(observation=other)])


class Doubling:
    """Adds every candidate times two."""

    def refine(self, policy_context, critic_context, candidates, seeds, executed, committed):
        return candidates * 2, ("double",) * candidates.shape[1]


def test_refined_candidates_join_and_never_replace() -> None:
    plain = Engine(ToyPolicy(), ToyCritic()).decide([request()])[0]
    refined = Engine(ToyPolicy(), ToyCritic(), [Doubling()]).decide([request()])[0]
    assert np.array_equal(refined.candidates[:8], plain.candidates)
    assert refined.origins == ("policy",) * 8 + ("double",) * 8
    assert refined.values.max() >= plain.values.max()


def test_refined_candidates_keep_the_committed_steps() -> None:
    committed = np.array([[0.5, -0.5]], np.float32)
    decision = Engine(ToyPolicy(), ToyCritic(), [Doubling()]).decide([request(committed=committed, execute=3)])[0]
    assert np.array_equal(decision.candidates[:, 0], np.repeat(committed, 16, axis=0))


def test_rerank_chooses_among_what_the_caller_brings() -> None:
    brought = np.zeros((3, 4, 2), np.float32)
    brought[1, :, 0] = 0.1
    decision = Engine(None, ToyCritic()).rerank([request(candidates=brought)])[0]
    assert decision.chosen == 1
    assert decision.origins == ("caller",) * 3


def test_rerank_needs_a_critic_and_infer_a_policy() -> None:
    with pytest.raises(UnsupportedError, match="no critic"):
        Engine(ToyPolicy()).rerank([request(candidates=np.zeros((3, 4, 2), np.float32))])
    with pytest.raises(UnsupportedError, match="no policy"):
        Engine(None, ToyCritic()).decide([request()])


def test_rerank_refuses_another_number_of_axes() -> None:
    with pytest.raises(SpecError, match="A=2"):
        Engine(None, ToyCritic()).rerank([request(candidates=np.zeros((3, 4, 7), np.float32))])


def test_models_with_other_actions_do_not_meet() -> None:
    critic = ToyCritic(action=replace(ACTION, kind="absolute"))
    with pytest.raises(SpecError, match="action kind: 'delta' against 'absolute'"):
        Engine(ToyPolicy(), critic)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"axes": (ActionAxis("dx", "m", -1, 1), ActionAxis("dz", "m", -1, 1))}, "action axes"),
        ({"axes": (ActionAxis("dx", "mm", -1, 1), ActionAxis("dy", "m", -1, 1))}, "'dx' unit: m against mm"),
        ({"axes": (ActionAxis("dx", "m", -2, 1), ActionAxis("dy", "m", -1, 1))}, "'dx' low"),
        ({"axes": (ActionAxis("dx", "m", -1, 2), ActionAxis("dy", "m", -1, 1))}, "'dx' high"),
        ({"kind": "velocity"}, "action kind"),
        ({"kind": "unknown"}, "'unknown' matches nothing"),
        ({"frame": "tool"}, "action frame"),
        ({"reference": "measured"}, "action reference"),
        ({"rotation": "rpy"}, "action rotation"),
        ({"gripper": "positive_opens"}, "action gripper"),
        ({"rate_hz": 10.0}, "action rate_hz: 20.0 against 10.0"),
    ],
)
def test_a_robot_that_differs_in_any_field_is_refused(change: dict, words: str) -> None:
    robot = replace(ROBOT, action=replace(ACTION, **change))
    with pytest.raises(SpecError, match=words):
        LocalSteering(Engine(ToyPolicy(), ToyCritic()), robot)


def test_unknown_passes_only_when_told() -> None:
    robot = replace(ROBOT, action=replace(ACTION, kind="unknown"))
    LocalSteering(Engine(ToyPolicy()), robot, accept_unknown=True)


@pytest.mark.parametrize("rule", ["first", "random"])
def test_control_rules_ask_no_critic(rule) -> None:
    critic = ToyCritic()
    decision = Engine(ToyPolicy(), critic).decide([request(selection=Selection(choose=rule))])[0]
    assert critic.encodes == 0
    assert decision.choose == rule
