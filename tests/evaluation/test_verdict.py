"""The verdict on critics whose quality is known: perfect, random, inverted, constant, diverged."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steer.action import ActionAxis, ActionSpec
from steer.critic import CriticSpec
from steer.data.frames import Frames
from steer.errors import SpecError
from steer.evaluation.verdict import Rules, auc, spearman, verdict
from steer.observation import Batch, ObservationSpec, Task
from steer.robot import RobotSpec
from steer.serial import from_json, to_json
from steer.spec import ArraySpec

ACTION = ActionSpec((ActionAxis("dx", "m", -1.0, 1.0),), "delta", "base", "measured", "none", "none", 10.0)
STATE = ArraySpec("state", "float32", (2,))
ROBOT = RobotSpec("toy", ACTION, ObservationSpec((STATE,)))
GAMMA, LENGTH = 0.9, 8


class ToyCritic:
    """Q = function(state [B, 2], first action [B, K]); both members agree."""

    version = "toy"

    def __init__(self, q: Callable[[np.ndarray, np.ndarray], np.ndarray], scale: float = 1.0) -> None:
        self.spec = CriticSpec(ObservationSpec((STATE,)), ACTION, prefixes=(2,), members=2, gamma=GAMMA)
        self.q, self.scale = q, scale

    def encode(self, observations: Batch) -> Any:
        return observations.arrays["state"][:, -1]

    def score(self, context: Any, actions: np.ndarray) -> np.ndarray:
        assert actions.shape[2] == 2
        value = self.scale * self.q(context, actions[..., 0, 0])
        return np.stack([value, value]).astype(np.float32)


def make_frames(successes: int, failures: int) -> Frames:
    """Episodes of 8 steps; the state is (true return of the state, steps left); the data's action is 0.5 in successes."""
    count = successes + failures
    success = np.arange(count) < successes
    left = np.arange(LENGTH, -1, -1)
    value = np.where(success[:, None], GAMMA ** np.maximum(left - 1, 0), 0.0)
    rewards = np.zeros((count, LENGTH + 1), np.float32)
    rewards[success, LENGTH - 1] = 1.0
    state = np.stack([value, np.broadcast_to(left, value.shape)], axis=-1)
    return Frames(
        robot=ROBOT,
        observations={"state": state.reshape(-1, 2).astype(np.float32)},
        actions=np.repeat(np.where(success, 0.5, -0.5), LENGTH + 1)[:, None].astype(np.float32),
        rewards=rewards.reshape(-1),
        starts=np.arange(count) * (LENGTH + 1),
        lengths=np.full(count, LENGTH),
        terminated=success,
        success=success,
        labelled=np.ones(count, np.bool_),
        episode_of=np.repeat(np.arange(count), LENGTH + 1),
        tasks=(Task(),) * count,
        ids=tuple(map(str, range(count))),
    )


def candidates(frames: Frames) -> np.ndarray:
    return np.random.default_rng(1).uniform(-0.9, 0.4, (len(frames), 5, 4, 1)).astype(np.float32)


def perfect(state: np.ndarray, action: np.ndarray) -> np.ndarray:
    return state[:, :1] + 0.1 * action


def judge(q: Callable[..., np.ndarray], successes: int = 30, failures: int = 30, **options: Any) -> Any:
    frames = make_frames(successes, failures)
    return verdict(ToyCritic(q), frames, candidates(frames), resamples=100, **options)


def test_a_perfect_critic_may_steer() -> None:
    result = judge(perfect)
    assert result.may_steer, result.reasons
    figures = result.figures
    assert figures["auc"] == 1.0
    assert figures["rank_correlation"] > 0.9
    # 0.5 beats every sample, none of which is above 0.4.
    assert figures["data_beats"] == 1.0
    assert (figures["episodes"], figures["successes"], figures["failures"]) == (60, 30, 30)
    assert "AUC of success is 1.000" in result.reasons[0]


def test_a_random_critic_may_not() -> None:
    rng = np.random.default_rng(0)
    result = judge(lambda state, action: rng.normal(0.5, 0.1, action.shape))
    assert not result.may_steer
    assert any("does not tell success from failure" in reason for reason in result.reasons)


def test_an_inverted_critic_may_not() -> None:
    result = judge(lambda state, action: 1 - perfect(state, action))
    assert not result.may_steer
    assert result.figures["auc"] == 0.0
    assert result.figures["rank_correlation"] < -0.9
    assert any("prefers other actions" in reason for reason in result.reasons)


def test_a_constant_critic_may_not_and_its_ties_count_half() -> None:
    result = judge(lambda state, action: np.full(action.shape, 0.5))
    assert not result.may_steer
    assert result.figures["auc"] == result.figures["data_beats"] == 0.5
    assert result.figures["rank_correlation"] == 0.0
    assert any("hardly differs between candidates" in reason for reason in result.reasons)


def test_a_critic_that_ignores_the_action_may_not() -> None:
    result = judge(lambda state, action: np.broadcast_to(state[:, :1], action.shape))
    assert result.figures["auc"] == 1.0
    assert [reason for reason in result.reasons if "hardly differs" in reason] == list(result.reasons)


@pytest.mark.parametrize("runaway", [40.0, -40.0])
def test_values_that_ran_away_are_named(runaway: float) -> None:
    result = judge(lambda state, action: perfect(state, action) + runaway)
    assert not result.may_steer
    assert len(result.reasons) == 1
    assert "values have run away" in result.reasons[0]


def test_scores_that_are_no_numbers_are_counted_and_named() -> None:
    result = judge(lambda state, action: np.where(action > 0.3, np.nan, perfect(state, action)))
    assert not result.may_steer
    assert result.figures["not_finite"] > 0
    assert any("not finite" in reason for reason in result.reasons)
    json.dumps(to_json(result), allow_nan=False)


@pytest.mark.parametrize(
    ("successes", "failures", "reason"),
    [
        (40, 3, "held-out failures: 3, at least 10 are needed: record more failed episodes"),
        (4, 40, "held-out successes: 4, at least 10 are needed: record more successful episodes"),
        (12, 12, "held-out episodes: 24, at least 30 are needed: record more episodes"),
    ],
)
def test_too_few_episodes_are_named(successes: int, failures: int, reason: str) -> None:
    result = judge(perfect, successes, failures)
    assert not result.may_steer
    assert result.reasons == (reason,)


@pytest.mark.parametrize("successes", [0, 40])
def test_one_kind_of_outcome_gives_an_interval_that_says_nothing(successes: int) -> None:
    figures = judge(perfect, successes, 40 - successes).figures
    assert (figures["auc_low"], figures["auc_high"]) == (0.0, 1.0)
    assert ("q_success_mean" in figures) == (successes == 40)


def test_it_is_json_and_reproducible() -> None:
    one, two = judge(perfect, max_states=100), judge(perfect, max_states=100)
    assert one == two
    assert one.figures["states"] == 100
    document = json.loads(json.dumps(to_json(one), allow_nan=False))
    assert document["may_steer"] is True
    assert document["figures"]["auc"] == 1.0
    assert from_json(Rules, document["rules"], "rules") == Rules()


def test_bound_rate_counts_samples_below_the_return() -> None:
    result = judge(lambda state, action: np.full(action.shape, 0.0))
    # Returns are above 0 in the successful half alone.
    assert result.figures["bound_rate"] == pytest.approx(0.5)


def test_candidates_of_other_frames_are_refused() -> None:
    frames = make_frames(3, 3)
    with pytest.raises(SpecError, match="rows of candidates"):
        verdict(ToyCritic(perfect), frames, candidates(frames)[:-1])


def test_progress_reaches_the_end() -> None:
    seen = []
    judge(perfect, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (480, 480)


@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2, max_size=30))
def test_auc_is_the_share_of_pairs_in_order(rows: list[tuple[int, bool]]) -> None:
    scores = np.array([row[0] for row in rows], np.float64)
    positive = np.array([row[1] for row in rows])
    pairs = scores[positive][:, None] - scores[~positive][None]
    got = auc(scores, positive)
    if pairs.size:
        assert got == pytest.approx(np.mean(0.5 * (np.sign(pairs) + 1)))
    else:
        assert np.isnan(got)


@given(st.lists(st.integers(-10, 10), min_size=3, max_size=20, unique=True))
def test_spearman_sees_only_the_order(values: list[int]) -> None:
    a = np.array(values, np.float64)
    assert spearman(a, np.exp(a / 10)) == pytest.approx(1.0)
    assert spearman(a, -(a**3)) == pytest.approx(-1.0, abs=1e-6)
    assert spearman(a, np.zeros_like(a)) == 0.0
