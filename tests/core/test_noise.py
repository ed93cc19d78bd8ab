"""Candidate noise: a function of (seed, k) alone."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from steer.noise import candidate_noise


@given(st.integers(-(2**63), 2**63 - 1), st.integers(1, 32), st.integers(1, 32))
def test_fewer_candidates_are_a_prefix_of_more(seed: int, few: int, many: int) -> None:
    few, many = sorted((few, many))
    seeds = np.array([seed])
    assert np.array_equal(candidate_noise(seeds, few, (4, 7)), candidate_noise(seeds, many, (4, 7))[:, :few])


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    both = candidate_noise(np.array([3, 4]), 5, (2,))
    assert np.array_equal(both[1], candidate_noise(np.array([4]), 5, (2,))[0])
    assert not np.array_equal(both[0], both[1])


def test_it_is_standard_normal() -> None:
    noise = candidate_noise(np.arange(50), 40, (4, 7))
    assert abs(noise.mean()) < 0.01
    assert abs(noise.std() - 1) < 0.01
