"""What every policy must keep, whoever wrote it: inherit `PolicyContract` and give it a `policy` fixture.

Rows are compared to a tolerance across batch shapes, because matrix products round differently there, and exactly otherwise.
A deterministic policy is asked for one candidate wherever another is asked for several.
What a spec says it does not keep (`seeding` "call" or "none") is not asked of it.
"""

from __future__ import annotations

import numpy as np
import pytest

from steer.errors import SpecError, UnsupportedError
from steer.observation import Batch
from steer.policy import Policy
from steer.spec import Array

ATOL = 1e-4


def observe(policy: Policy, rows: int, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    return Batch.stack([policy.spec.observation.generate(rng) for _ in range(rows)])


def several(policy: Policy, count: int) -> int:
    """So many candidates, or the only one that there is."""
    return count if policy.spec.stochastic else 1


def draw(policy: Policy, batch: Batch, count: int, seeds: list[int], temperature: float = 1.0) -> Array:
    return policy.sample(policy.encode(batch), several(policy, count), np.array(seeds, np.int64), temperature)


class PolicyContract:
    """The suite."""

    def test_candidates_have_the_shape_type_and_bounds_of_the_spec(self, policy: Policy) -> None:
        got = draw(policy, observe(policy, 2), 3, [1, 2])
        assert got.shape == (2, several(policy, 3), policy.spec.horizon, policy.spec.action.size)
        policy.spec.action.validate(got)

    def test_the_version_names_the_weights(self, policy: Policy) -> None:
        assert policy.version

    def test_the_same_seed_gives_the_same_candidates(self, policy: Policy) -> None:
        if policy.spec.seeding == "none":
            return
        batch = observe(policy, 1)
        np.testing.assert_array_equal(draw(policy, batch, 4, [5]), draw(policy, batch, 4, [5]))

    def test_a_context_can_be_sampled_again(self, policy: Policy) -> None:
        if policy.spec.seeding == "none":
            return
        context = policy.encode(observe(policy, 1))
        first = policy.sample(context, several(policy, 4), np.array([5]))
        policy.sample(context, several(policy, 2), np.array([6]))
        np.testing.assert_array_equal(policy.sample(context, several(policy, 4), np.array([5])), first)

    def test_other_seeds_and_other_k_differ(self, policy: Policy) -> None:
        if not policy.spec.stochastic:
            with pytest.raises(UnsupportedError, match="deterministic"):
                policy.sample(policy.encode(observe(policy, 1)), 2, np.array([5]))
            return
        batch = observe(policy, 1)
        got = draw(policy, batch, 2, [5])
        assert not np.allclose(got[0, 0], got[0, 1], atol=ATOL)
        assert not np.allclose(got, draw(policy, batch, 2, [6]), atol=ATOL)

    @pytest.mark.parametrize("fewer", [1, 8])
    def test_fewer_candidates_are_the_first_of_more(self, policy: Policy, fewer: int) -> None:
        if policy.spec.seeding != "request":
            return
        batch = observe(policy, 1)
        np.testing.assert_allclose(draw(policy, batch, 32, [5])[:, :fewer], draw(policy, batch, fewer, [5]), atol=ATOL)

    def test_a_row_does_not_depend_on_its_neighbours(self, policy: Policy) -> None:
        if policy.spec.seeding != "request":
            return
        both = observe(policy, 2)
        got = draw(policy, both, 4, [5, 6])
        for row, seed in enumerate([5, 6]):
            alone = Batch({key: value[row : row + 1] for key, value in both.arrays.items()}, both.mask[row : row + 1])
            np.testing.assert_allclose(got[row : row + 1], draw(policy, alone, 4, [seed]), atol=ATOL)

    def test_temperature_zero_leaves_one_candidate(self, policy: Policy) -> None:
        if not policy.spec.temperature:
            with pytest.raises(UnsupportedError, match="temperature"):
                draw(policy, observe(policy, 1), 1, [5], temperature=0.0)
            return
        got = draw(policy, observe(policy, 1), 4, [5], temperature=0.0)
        np.testing.assert_allclose(got, np.broadcast_to(got[:, :1], got.shape), atol=ATOL)

    def test_what_cannot_be_sampled_is_refused(self, policy: Policy) -> None:
        context = policy.encode(observe(policy, 1))
        with pytest.raises(UnsupportedError, match="at least 1"):
            policy.sample(context, 0, np.array([5]))
        with pytest.raises(UnsupportedError, match="negative"):
            policy.sample(context, 1, np.array([5]), -1.0)

    def test_a_missing_observation_is_named(self, policy: Policy) -> None:
        batch = observe(policy, 1)
        with pytest.raises(SpecError, match=policy.spec.observation.keys[0]):
            policy.encode(Batch({}, batch.mask))

    def test_an_observation_of_the_wrong_shape_is_named(self, policy: Policy) -> None:
        batch = observe(policy, 1)
        for key in policy.spec.observation.keys:
            with pytest.raises(SpecError, match=key):
                policy.encode(Batch({**batch.arrays, key: batch.arrays[key][..., :-1]}, batch.mask))

    def test_an_observation_that_is_not_finite_is_refused(self, policy: Policy) -> None:
        batch = observe(policy, 1)
        for key, value in batch.arrays.items():
            if np.issubdtype(value.dtype, np.floating):
                with pytest.raises(SpecError, match="finite"):
                    policy.encode(Batch({**batch.arrays, key: np.full_like(value, np.nan)}, batch.mask))

    def test_black_and_white_images_give_different_candidates(self, policy: Policy) -> None:
        batch = observe(policy, 1)
        for key, value in batch.arrays.items():
            if value.dtype == np.uint8:
                black = Batch({**batch.arrays, key: np.zeros_like(value)}, batch.mask)
                white = Batch({**batch.arrays, key: np.full_like(value, 255)}, batch.mask)
                assert not np.allclose(draw(policy, black, 2, [5]), draw(policy, white, 2, [5]), atol=ATOL)

    def test_committed_steps_are_kept_by_those_who_inpaint(self, policy: Policy) -> None:
        if not policy.spec.inpaints:
            return
        spec = policy.spec.action
        committed = spec.high[None, None] * np.float32(0.5)
        context = policy.encode(observe(policy, 1))
        got = policy.sample(context, 4, np.array([5]), 1.0, committed)
        np.testing.assert_allclose(got[:, :, :1], np.broadcast_to(committed[:, None], got[:, :, :1].shape), atol=1e-6)
        assert not np.allclose(got[:, :, 1:], policy.sample(context, 4, np.array([5]))[:, :, 1:], atol=ATOL)
