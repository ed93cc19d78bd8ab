"""Where steps come from, as arrays beside the actions and words in the info."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from steer.data.trace import Choice, trace_arrays
from steer.decision import Decision

CANDIDATES = np.arange(2 * 3 * 2, dtype=np.float32).reshape(2, 3, 2)
DECISION = Decision(
    candidates=CANDIDATES,
    origins=("policy", "gradient"),
    scores=np.array([[0.25, 0.5], [0.25, 1.0]], np.float32),
    values=np.array([0.25, 0.75], np.float32),
    chosen=1,
    committed=1,
    executed=2,
    seed=2**62,
    temperature=1.0,
    reduce="mean",
    choose="best",
    policy_version="p1",
    critic_version="c1",
)


def choices(*versions: str | None) -> list[Choice | None]:
    """One step per policy version, decision i for step i."""
    return [
        None if version is None else Choice.of(replace(DECISION, policy_version=version), 0, number)
        for number, version in enumerate(versions)
    ]


def facts_of(*versions: str | None) -> dict[str, Any]:
    made = choices(*versions)
    return trace_arrays(made, [False] * len(made), 2)[1]


def test_a_step_is_what_its_decision_says_of_it() -> None:
    made = [None, Choice.of(DECISION, 0, 4), Choice.of(DECISION, 1, 4), None]
    steps, facts = trace_arrays(made, [False, False, False, True], 2)
    nan = np.nan
    np.testing.assert_array_equal(steps["proposed"], [[nan, nan], [2, 3], [4, 5], [nan, nan]])
    np.testing.assert_array_equal(steps["scored"], [[nan, nan], [8, 9], [10, 11], [nan, nan]])
    np.testing.assert_array_equal(steps["value"], np.float32([nan, 0.75, 0.75, nan]))
    np.testing.assert_array_equal(steps["decision"], [-1, 4, 4, -1])
    np.testing.assert_array_equal(steps["decision_seed"], [0, 2**62, 2**62, 0])
    np.testing.assert_array_equal(steps["chosen"], [-1, 1, 1, -1])
    np.testing.assert_array_equal(steps["chunk_start"], [False, True, False, False])
    np.testing.assert_array_equal(steps["held"], [True, False, False, False])
    np.testing.assert_array_equal(steps["intervention"], [False, False, False, True])
    assert [facts["origins"][index] for index in steps["origin"][1:3]] == ["gradient", "gradient"]
    assert facts["intervention_steps"] == 1


def test_without_a_critic_there_is_no_value() -> None:
    unscored = replace(DECISION, scores=np.zeros((0, 2), np.float32))
    assert np.isnan(Choice.of(unscored, 0, 0).value)


def test_the_last_versions_are_named_and_all_of_them_where_they_changed() -> None:
    assert "versions" not in facts_of("p1", None, "p1")
    assert facts_of("p1", None, "p1")["policy_version"] == "p1"
    changed = facts_of("p1", None, "p2", "p2", "p1")
    assert (changed["policy_version"], changed["critic_version"]) == ("p1", "c1")
    assert [(stretch["step"], stretch["policy_version"]) for stretch in changed["versions"]] == [
        (0, "p1"),
        (2, "p2"),
        (4, "p1"),
    ]
    assert "policy_version" not in facts_of(None, None)


def test_a_step_keeps_no_candidates_alive() -> None:
    choice = Choice.of(DECISION, 0, 0)
    assert choice.proposed.base is None
    assert choice.scored.base is None
