"""Refinement adds better candidates and moves only what it may."""

from __future__ import annotations

import numpy as np
import pytest

from critics.refine import GradientRefiner
from steer.errors import ConfigError, UnsupportedError
from steer.refiner import Refiner
from tests.critics.toys import ACTION, chunks_of, make_critic, observe, tiny

SEEDS = np.zeros(2, np.int64)


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("changes", [{}, {"head": "hl_gauss"}, {"features": "raw"}])
def test_refined_candidates_score_higher_and_stay_in_bounds(changes: dict[str, str], normalised: bool) -> None:
    critic = make_critic(tiny(**changes))
    context, candidates = critic.encode(observe(2)), chunks_of(2, 5, 6)
    refiner: Refiner = GradientRefiner(critic, steps=5, step_size=0.1, keep=2, normalised=normalised)
    added, origins = refiner.refine(None, context, candidates, SEEDS, executed=4, committed=0)
    assert origins == ("gradient", "gradient")
    assert added.shape == (2, 2, 6, ACTION.size)
    ACTION.validate(added)
    before = np.sort(critic.score(context, candidates[:, :, :4]).mean(0), axis=1)[:, :-3:-1]
    after = critic.score(context, added[:, :, :4]).mean(0)
    assert (after > before).all()


def test_committed_steps_and_the_tail_stay_bit_for_bit() -> None:
    critic = make_critic(tiny())
    context, candidates = critic.encode(observe(2)), chunks_of(2, 5, 6)
    added, _ = GradientRefiner(critic).refine(None, context, candidates, SEEDS, executed=4, committed=1)
    scores = critic.score(context, candidates[:, :, :4]).mean(0)
    best = candidates[np.arange(2), scores.argmax(1)]
    np.testing.assert_array_equal(added[:, 0, :1], best[:, :1])
    np.testing.assert_array_equal(added[:, 0, 4:], best[:, 4:])
    assert not np.array_equal(added[:, 0, 1:4], best[:, 1:4])


def test_a_normalised_step_has_its_length() -> None:
    critic = make_critic(tiny())
    candidates = 0.1 * chunks_of(1, 1, 4)
    added, _ = GradientRefiner(critic, steps=1, step_size=0.05).refine(
        None, critic.encode(observe(1)), candidates, SEEDS[:1], executed=4, committed=0
    )
    moved = (added - candidates) / ACTION.high
    assert np.linalg.norm(moved) == pytest.approx(0.05, rel=1e-3)


def test_other_prefixes_and_settings_are_refused() -> None:
    critic = make_critic(tiny())
    context, candidates = critic.encode(observe(2)), chunks_of(2, 5, 6)
    with pytest.raises(UnsupportedError, match="trained to score"):
        GradientRefiner(critic).refine(None, context, candidates, SEEDS, executed=3, committed=0)
    with pytest.raises(UnsupportedError, match="nothing is left"):
        GradientRefiner(critic).refine(None, context, candidates, SEEDS, executed=4, committed=4)
    with pytest.raises(ConfigError, match="positive"):
        GradientRefiner(critic, steps=0)
