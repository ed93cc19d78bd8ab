"""The attention rule: literal small cases, and the token-by-token rules for any layout."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.octo.attention import Group, Layout, attention_rule

GROUPS = st.lists(st.integers(1, 4), min_size=1, max_size=3)


def seen(rule: np.ndarray, query: int) -> list[int]:
    return np.flatnonzero(rule[query]).tolist()


def layout(cameras: list[int], readout: int = 1, window: int = 2, prefix: int = 2) -> Layout:
    groups = [Group(f"camera{i}", size) for i, size in enumerate(cameras)]
    return Layout(prefix, window, (*groups, Group("readout_action", readout, readout=True)))


def test_who_sees_whom_in_two_steps() -> None:
    # 0 1 | 2 3 camera, 4 readout | 5 6 camera, 7 readout
    rule = attention_rule(layout([2]))
    assert seen(rule, 0) == seen(rule, 1) == [0, 1]
    assert seen(rule, 2) == seen(rule, 3) == [0, 1, 2, 3]
    assert seen(rule, 4) == [0, 1, 2, 3, 4]
    assert seen(rule, 5) == seen(rule, 6) == [0, 1, 2, 3, 5, 6]
    assert seen(rule, 7) == list(range(8))


def test_the_first_release_lets_observations_see_the_readout() -> None:
    rule = attention_rule(layout([2]), exact=False)
    assert seen(rule, 2) == seen(rule, 3) == seen(rule, 4) == [0, 1, 2, 3, 4]
    assert seen(rule, 5) == seen(rule, 6) == seen(rule, 7) == list(range(8))
    assert seen(rule, 0) == [0, 1]


def test_the_first_release_misplaces_only_the_first_token_of_a_group() -> None:
    # 0 1 | 2 camera, 3 4 5 readout
    rule = attention_rule(layout([1], readout=3, window=1), exact=False)
    assert seen(rule, 2) == seen(rule, 3) == [0, 1, 2, 3]
    assert seen(rule, 4) == seen(rule, 5) == [0, 1, 2, 3, 4, 5]


def test_readouts_do_not_see_those_of_another_kind() -> None:
    two = Layout(1, 1, (Group("camera", 1), Group("readout_a", 1, readout=True), Group("readout_b", 1, readout=True)))
    rule = attention_rule(two)
    assert seen(rule, 2) == [0, 1, 2]
    assert seen(rule, 3) == [0, 1, 3]


@pytest.mark.parametrize("exact", [True, False])
@settings(max_examples=25, deadline=None)
@given(cameras=GROUPS, readout=st.integers(1, 3), window=st.integers(1, 3), prefix=st.integers(1, 3))
def test_the_matrix_follows_the_rules_token_by_token(
    exact: bool, cameras: list[int], readout: int, window: int, prefix: int
) -> None:
    shape = layout(cameras, readout, window, prefix)
    tokens: list[tuple[int, int, bool]] = [(-1, -1, False)] * prefix
    for step in range(window):
        for kind, group in enumerate(shape.groups):
            for i in range(group.size):
                counted = kind - 1 if not exact and kind and not i else kind
                tokens.append((step, counted, shape.groups[counted].readout))

    def sees(query: tuple[int, int, bool], key: tuple[int, int, bool]) -> bool:
        if key[2]:
            return query[2] and query[1] == key[1] and key[0] <= query[0]
        return key[0] <= query[0]

    want = [[sees(query, key) for key in tokens] for query in tokens]
    np.testing.assert_array_equal(attention_rule(shape, exact), want)


def test_rows_find_a_group_in_every_step() -> None:
    np.testing.assert_array_equal(layout([2, 1]).rows("readout_action"), [[3], [7]])
    np.testing.assert_array_equal(layout([2, 1]).rows("camera0"), [[0, 1], [4, 5]])
