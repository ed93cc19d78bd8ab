"""The laws of batch size and learning rate, the presets, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from steer.errors import ConfigError
from steer.online.config import PRESETS, OnlineConfig, proposed_batch_size, proposed_learning_rate


def test_batch_and_rate_fall_as_fitted_with_more_updates() -> None:
    # Published slopes: UTD 1 to 4 takes the batch to .51-.65 and the rate to .64-.67 of itself.
    assert (proposed_batch_size(1.0), proposed_learning_rate(1.0)) == (256, 3e-4)
    assert 0.51 * 256 <= proposed_batch_size(4.0) <= 0.65 * 256
    assert 0.64 * 3e-4 <= proposed_learning_rate(4.0) <= 0.67 * 3e-4
    assert proposed_batch_size(0.1) == 256


def test_what_is_asked_for_goes_before_the_law() -> None:
    assert OnlineConfig(utd=4.0, batch_size=32).critic_batch_size == 32
    assert OnlineConfig(utd=4.0, learning_rate=1e-3).critic_learning_rate == 1e-3
    assert OnlineConfig(utd=4.0).critic_batch_size == proposed_batch_size(4.0)


def test_presets_are_what_their_papers_say() -> None:
    calql, wsrl, rlpd = (PRESETS[name] for name in ("calql", "wsrl", "rlpd"))
    assert calql.conservative
    assert calql.offline_share == 0.5
    assert (wsrl.conservative, wsrl.offline_share, wsrl.target_subset, wsrl.utd) == (False, 0.0, 2, 4.0)
    assert wsrl.warmup_episodes > 0
    assert (rlpd.conservative, rlpd.offline_share, rlpd.fresh_critic, rlpd.members) == (False, 0.5, True, 10)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"offline_share": 1.5}, "offline_share is 1.5, expected between 0 and 1"),
        ({"utd": -1.0}, "utd is -1.0, expected 0 or more"),
        ({"utd": float("nan")}, "utd is nan"),
        ({"base_samples": 0}, "base_samples is 0, expected at least 1"),
        ({"student_samples": 0}, "student_samples is 0"),
        ({"policy_average": 1.0}, "policy_average"),
        ({"members": 10}, "start a fresh one"),
        ({"proposal_seed": -1}, "proposal_seed is -1, expected 0 or more"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(OnlineConfig(), **changes)


def test_offline_data_that_are_wanted_must_be_there() -> None:
    with pytest.raises(ConfigError, match=r"0\.5 of each batch .* there is none: give --offline"):
        OnlineConfig().check_offline(given=False)
    with pytest.raises(ConfigError, match="statistics from offline data"):
        OnlineConfig(fresh_critic=True, offline_share=0.0).check_offline(given=True)
    OnlineConfig(offline_share=0.0).check_offline(given=False)
    OnlineConfig().check_offline(given=True)
