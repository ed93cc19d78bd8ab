"""What every critic must keep, whoever wrote it: inherit `CriticContract` and give it a `critic` fixture.

Rows and candidates are compared to a tolerance across batch shapes, because matrix products round differently there, and
exactly otherwise.
"""

from __future__ import annotations

import numpy as np
import pytest

from steer.critic import Critic
from steer.errors import SpecError, UnsupportedError
from steer.observation import Batch
from steer.spec import Array

ATOL = 1e-4


def observe(critic: Critic, rows: int, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    return Batch.stack([critic.spec.observation.generate(rng) for _ in range(rows)])


def chunks(critic: Critic, rows: int, count: int, seed: int = 0, steps: int | None = None) -> Array:
    spec = critic.spec
    length = spec.scored_steps(spec.prefixes[0]) if steps is None else steps
    shape = (rows, count, length, spec.action.size)
    return np.random.default_rng(seed).uniform(spec.action.low, spec.action.high, shape).astype(np.float32)


class CriticContract:
    """The suite."""

    def test_scores_have_the_shape_and_type_of_the_spec(self, critic: Critic) -> None:
        got = critic.score(critic.encode(observe(critic, 2)), chunks(critic, 2, 3))
        assert got.shape == (critic.spec.members, 2, 3)
        assert got.dtype == np.float32
        assert np.isfinite(got).all()

    def test_the_version_names_the_weights(self, critic: Critic) -> None:
        assert critic.version

    def test_every_prefix_of_the_spec_can_be_scored(self, critic: Critic) -> None:
        context = critic.encode(observe(critic, 1))
        for prefix in critic.spec.prefixes:
            steps = critic.spec.scored_steps(prefix)
            assert critic.score(context, chunks(critic, 1, 2, steps=steps)).shape == (critic.spec.members, 1, 2)

    def test_a_context_can_be_asked_again(self, critic: Critic) -> None:
        context = critic.encode(observe(critic, 2))
        first = critic.score(context, chunks(critic, 2, 3))
        critic.score(context, chunks(critic, 2, 5, seed=1))
        np.testing.assert_array_equal(critic.score(context, chunks(critic, 2, 3)), first)

    def test_scoring_changes_neither_observations_nor_actions(self, critic: Critic) -> None:
        batch, actions = observe(critic, 2), chunks(critic, 2, 3)
        seen, asked = {key: value.copy() for key, value in batch.arrays.items()}, actions.copy()
        critic.score(critic.encode(batch), actions)
        np.testing.assert_array_equal(actions, asked)
        for key, value in seen.items():
            np.testing.assert_array_equal(batch.arrays[key], value)

    def test_read_only_arrays_are_accepted(self, critic: Critic) -> None:
        batch, actions = observe(critic, 1), chunks(critic, 1, 2)
        for value in (*batch.arrays.values(), actions):
            value.setflags(write=False)
        assert critic.score(critic.encode(batch), actions).shape == (critic.spec.members, 1, 2)

    def test_a_candidate_does_not_depend_on_the_others(self, critic: Critic) -> None:
        context, actions = critic.encode(observe(critic, 1)), chunks(critic, 1, 32)
        every = critic.score(context, actions)
        for k in (0, 7, 31):
            np.testing.assert_allclose(critic.score(context, actions[:, k : k + 1])[..., 0], every[..., k], atol=ATOL)
        np.testing.assert_allclose(critic.score(context, actions[:, ::-1])[..., ::-1], every, atol=ATOL)

    def test_a_row_does_not_depend_on_its_neighbours(self, critic: Critic) -> None:
        both, actions = observe(critic, 2), chunks(critic, 2, 4)
        got = critic.score(critic.encode(both), actions)
        for row in range(2):
            alone = Batch({key: value[row : row + 1] for key, value in both.arrays.items()}, both.mask[row : row + 1])
            single = critic.score(critic.encode(alone), actions[row : row + 1])
            np.testing.assert_allclose(single[:, 0], got[:, row], atol=ATOL)

    def test_states_actions_and_members_make_a_difference(self, critic: Critic) -> None:
        actions = np.repeat(chunks(critic, 1, 2), 2, axis=0)
        got = critic.score(critic.encode(observe(critic, 2)), actions)
        assert not np.allclose(got[:, 0], got[:, 1], atol=1e-6)
        assert not np.allclose(got[:, :, 0], got[:, :, 1], atol=1e-6)
        if critic.spec.members > 1:
            assert not np.allclose(got[0], got[1], atol=1e-6)

    def test_another_prefix_is_refused(self, critic: Critic) -> None:
        wrong = max(critic.spec.prefixes) + 1
        with pytest.raises(UnsupportedError, match=str(wrong)):
            critic.score(critic.encode(observe(critic, 1)), chunks(critic, 1, 2, steps=wrong))

    def test_wrong_shapes_and_types_are_refused(self, critic: Critic) -> None:
        context, actions = critic.encode(observe(critic, 2)), chunks(critic, 2, 3)
        for wrong in (actions[..., :-1], actions[0], actions[:1], actions.astype(np.float64)):
            with pytest.raises(SpecError, match="actions"):
                critic.score(context, wrong)

    def test_missing_or_misshapen_observations_are_refused(self, critic: Critic) -> None:
        batch, key = observe(critic, 1), critic.spec.observation.keys[0]
        without = Batch({name: value for name, value in batch.arrays.items() if name != key}, batch.mask)
        with pytest.raises(SpecError, match=key):
            critic.encode(without)
        with pytest.raises(SpecError, match=key):
            critic.encode(Batch({**batch.arrays, key: batch.arrays[key][..., :-1]}, batch.mask))
