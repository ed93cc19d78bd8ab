"""Heads start low and fit their targets; the terms keep their promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from critics.config import CriticConfig
from critics.heads import HLGauss, HLGaussConfig, MeanSquared
from critics.td import TDConfig
from critics.terms import cal_ql_bound, next_values, polyak, random_subset, soft_maximum
from steer.errors import ConfigError


def test_the_histogram_starts_near_the_initial_value_with_every_bin_in_reach() -> None:
    head = HLGauss(HLGaussConfig(initial=0.0))
    start = head.initial_bias()
    assert 0.0 < head.values(start[None]).item() < 0.1
    assert start.softmax(-1).min() > 1e-3


def test_fitting_the_histogram_reaches_the_target() -> None:
    head = HLGauss(HLGaussConfig())
    logits = head.initial_bias().repeat(3, 1).requires_grad_()
    targets = torch.tensor([0.0, 0.4, 1.0])
    optimizer = torch.optim.Adam([logits], 0.1)
    for _ in range(200):
        optimizer.zero_grad()
        head.loss(logits, targets).sum().backward()
        optimizer.step()
    torch.testing.assert_close(head.values(logits.detach()), targets, atol=0.02, rtol=0)


def test_targets_outside_the_support_are_moved_to_its_edge_and_counted() -> None:
    head = HLGauss(HLGaussConfig(low=0.0, high=1.0, bins=10, initial=0.0))
    targets = torch.tensor([-3.0, 0.5, 9.0, 1.0])
    got = head.target_probabilities(targets)
    assert torch.isfinite(got).all()
    torch.testing.assert_close(got.sum(-1), torch.ones(4))
    assert got[0].argmax() == 0
    assert got[2].argmax() == 9
    assert head.outside(targets) == 0.5


@pytest.mark.parametrize("wrong", [{"low": 1.0, "high": 0.0}, {"bins": 1}, {"initial": 7.0}, {"sigma_bins": 0.0}])
def test_impossible_supports_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="hl_gauss"):
        HLGaussConfig(**wrong)


def test_mean_squared_is_half_the_square() -> None:
    assert MeanSquared().loss(torch.tensor([[3.0]]), torch.tensor([1.0])).item() == 2.0


def test_the_bound_stops_gradients_below_the_return_only() -> None:
    q = torch.tensor([[[0.1, 0.9]]], requires_grad=True)
    cal_ql_bound(q, torch.tensor([0.5])).sum().backward()
    assert q.grad is not None
    assert q.grad.tolist() == [[[0.0, 1.0]]]


def test_own_members_keep_their_own_maximum() -> None:
    q = torch.tensor([[[1.0, 5.0]], [[4.0, 2.0]]])
    assert next_values(q, "own", "max").tolist() == [[5.0], [4.0]]
    # Per action the lowest first, then the maximum: (1, 2) -> 2.
    assert next_values(q, "min", "max").tolist() == [[2.0], [2.0]]
    assert next_values(q, "own", "mean").tolist() == [[3.0], [3.0]]


def test_entropy_backup_without_densities_is_refused() -> None:
    with pytest.raises(ConfigError, match="log-densities"):
        next_values(torch.zeros(1, 1, 2), "own", "max", None, entropy_weight=0.1)


def test_the_soft_maximum_of_equal_values_is_that_value() -> None:
    values = torch.full((1, 2, 5), 0.3)
    torch.testing.assert_close(soft_maximum(values), torch.full((1, 2), 0.3))
    assert (soft_maximum(values, count_correction=False) > 1.0).all()


def test_polyak_moves_by_the_rate() -> None:
    target, online = torch.zeros(2), torch.ones(2)
    polyak([target], [online], 0.25)
    assert target.tolist() == [0.25, 0.25]


def test_a_subset_needs_a_rule_that_is_over_members() -> None:
    with pytest.raises(ConfigError, match="set members to min"):
        TDConfig(subset=2)
    assert TDConfig(subset=2, members="min").subset == 2


def test_subsets_repeat_members_only_with_replacement() -> None:
    rng = np.random.default_rng(0)
    assert all(len(set(random_subset(3, 3, rng, replacement=False))) == 3 for _ in range(20))
    assert any(len(set(random_subset(3, 3, rng, replacement=True))) < 3 for _ in range(20))
    with pytest.raises(ConfigError, match="subset of 4"):
        random_subset(3, 4, rng, replacement=False)


@pytest.mark.parametrize(
    ("wrong", "message"), [({"gamma": 1.0}, "gamma"), ({"members": 0}, "members"), ({"hidden": ()}, "hidden")]
)
def test_impossible_configs_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CriticConfig(**wrong)
