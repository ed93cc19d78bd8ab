"""The guard: what it gives up, what it leaves alone, and how often it errs when thousands of versions live and die."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.guard import draw, first_alarms
from steer.server.guard import Guard, Outcome, evidence


def outcomes(version: int, text: str) -> list[Outcome]:
    """'1101' as outcomes of a version."""
    return [Outcome(version, letter == "1") for letter in text]


GOOD = outcomes(0, "11110" * 10)


def test_the_evidence_is_the_ratio_of_two_likelihoods() -> None:
    # Without a reference, and one failure seen: as before, its rate is Beta(1/2, 1/2), so that it fails with probability 1/2.
    # Worse: with r of that distribution and the rate even below r, it fails with probability 1 - r / 2, 3/4 on average.
    one_failure = evidence(np.array([0]), np.array([1]), 0, 0)
    np.testing.assert_allclose(one_failure, [1.5], rtol=0.01)


def test_while_nothing_changed_the_evidence_keeps_its_mean() -> None:
    known, episodes = 15, 20
    before = evidence(np.array([2]), np.array([1]), known, episodes)[0]
    after = evidence(np.array([3, 2]), np.array([1, 2]), known, episodes)
    chance = (known + 2 + 0.5) / (episodes + 3 + 1)  # of a success, given the reference and these three episodes
    np.testing.assert_allclose(chance * after[0] + (1 - chance) * after[1], before, rtol=0.01)


def test_a_drop_is_given_up_and_the_words_say_why() -> None:
    verdict = Guard().judge([*GOOD, *outcomes(1, "001000")], 1)
    assert verdict.worse
    assert str(verdict).startswith(
        "version 1 succeeded in 1 of 6 episodes, those before it in 40 of the last 50: this is "
    )


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (GOOD, ""),  # nobody has played it
        (GOOD, "11011"),  # as good
        (GOOD, "0011111111"),  # a bad start
        ([], "0000000000"),  # nothing to compare with
        (outcomes(0, "1" * 50), "0"),  # one failure is no pattern
        (outcomes(0, "00001" * 10), "0000000000"),  # hard to tell from what was there
    ],
)
def test_what_proves_nothing_is_left_alone(before: list[Outcome], now: str) -> None:
    assert not Guard().judge([*before, *outcomes(1, now)], 1).worse


def test_what_was_proven_once_holds() -> None:
    assert Guard().judge([*GOOD, *outcomes(1, "00000" + "1" * 50)], 1).worse


def test_the_reference_is_of_earlier_versions_that_were_not_refused_and_recent() -> None:
    bad, now = outcomes(1, "0" * 50), outcomes(2, "000000")
    assert Guard().judge([*GOOD, *bad, *now], 2, refused=()).reference_successes == 40
    judged = Guard().judge([*GOOD, *bad, *now], 2, refused={1})
    assert (judged.reference_successes, judged.reference_episodes, judged.worse) == (40, 50, True)
    assert Guard(reference=50).judge([*GOOD, *bad, *now], 2).reference_successes == 0
    # Sessions that were still on the older version when the new one came are no part of it.
    late = Guard().judge([*GOOD, *now, *outcomes(0, "0" * 50)], 2)
    assert (late.reference_successes, late.reference_episodes) == (40, 50)


def test_whole_lives_are_judged_as_episode_by_episode() -> None:
    rng, guard = np.random.default_rng(0), Guard()
    success = rng.random((20, 30)) < 0.3
    reference = np.full(20, 40)
    for row, alarm in zip(success, first_alarms(guard, reference, 50, success), strict=True):
        told = [guard.judge([*GOOD, *(Outcome(1, bool(s)) for s in row[:n])], 1).worse for n in range(1, 31)]
        assert told == [n >= alarm for n in range(1, 31)]


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("episodes", [10, 50])
def test_a_version_that_changed_nothing_is_given_up_at_most_once_in_twenty_lives(rate: float, episodes: int) -> None:
    alarms = draw(Guard(), np.random.default_rng(0), rate, rate, episodes, runs=3000, life=150)
    assert np.mean(alarms <= 150) <= 0.05


def test_a_drop_from_four_in_five_to_one_in_five_is_undone_within_ten_episodes() -> None:
    alarms = draw(Guard(), np.random.default_rng(0), 0.8, 0.2, 50, runs=3000, life=30)
    assert np.quantile(alarms, 0.9, method="higher") <= 10
    assert np.median(alarms) <= 5
