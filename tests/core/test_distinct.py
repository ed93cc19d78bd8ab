"""Equal candidates are found, and put back where they were."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from steer.decision import Request
from steer.distinct import distinct
from steer.engine import Engine
from tests.core.toys import ToyCritic, observe


def test_each_different_candidate_is_kept_once_in_order() -> None:
    a, b, c = (np.full((2, 3), value, np.float32) for value in (1, 2, 3))
    first, where = distinct(np.stack([np.stack([b, a, b, a]), np.stack([a, b, c, c])]))
    assert first.tolist() == [[0, 1, 0], [0, 1, 2]]
    assert where.tolist() == [[0, 1, 0, 1], [0, 1, 2, 2]]


@given(st.lists(st.lists(st.integers(0, 3), min_size=5, max_size=5), min_size=1, max_size=4))
def test_taking_the_different_ones_and_expanding_gives_the_same(rows: list[list[int]]) -> None:
    candidates = np.array(rows, np.float32)[..., None]
    first, where = distinct(candidates)
    kept = np.take_along_axis(candidates, first[..., None], axis=1)
    np.testing.assert_array_equal(np.take_along_axis(kept, where[..., None], axis=1), candidates)
    assert first.shape[1] == max(len(set(row)) for row in rows)


def test_the_engine_scores_equal_chunks_once_and_gives_them_equal_scores() -> None:
    different = np.random.default_rng(0).uniform(-0.1, 0.1, (3, 4, 2)).astype(np.float32)
    critic = ToyCritic()
    brought = Request(observe(), candidates=different[[0, 1, 0, 2, 1]])
    decision = Engine(None, critic).rerank([brought])[0]
    assert critic.scored[0].shape[1] == 3
    np.testing.assert_array_equal(decision.scores[:, [0, 1]], decision.scores[:, [2, 4]])
    alone = Engine(None, ToyCritic()).rerank([Request(observe(), candidates=different)])[0]
    np.testing.assert_array_equal(decision.scores[:, [0, 1, 3]], alone.scores)
