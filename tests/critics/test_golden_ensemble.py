"""The Cal-QL loss against the published ensemble code (WSRL, V-GPS): shared head, mean over members, subsets."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from critics.batch import CriticBatch
from critics.calql import CalQL, CalQLConfig
from critics.td import TD, TDConfig
from tests.critics.golden import CLOSE, GRADIENT_CLOSE, GoldenQ, chunks, ensemble, load, settings, state

CASES = settings("calql_ensemble")
CONSERVATIVE = [name for name in CASES if name != "wsrl_sac_redq"]
DATA = load("calql_ensemble")
BACKUP = TDConfig(members="min", over_members="mean", subset_replacement=True)


def golden(case: str, name: str) -> np.ndarray:
    return DATA[f"{case}.{name}"]


def networks(case: str) -> tuple[GoldenQ, GoldenQ]:
    net = "net_ln10" if "redq" in case else "net"
    return (
        GoldenQ(ensemble(DATA, f"{net}.params.modules_critic")),
        GoldenQ(ensemble(DATA, f"{net}.target_params.modules_critic")),
    )


def make_batch(case: str) -> CriticBatch:
    """The stored batch; candidates in the published order: random, current, next."""
    next_actions = golden(case, "td_next_actions")
    if next_actions.ndim == 2:
        next_actions = next_actions[:, None]
    others, log_probs = np.zeros((6, 0, 3), np.float32), None
    if case in CONSERVATIVE:
        others = golden(case, "cql_q_samples_actions_in")
        uniform_density = np.full((6, 4), 3 * math.log(0.5), np.float32)
        densities = [uniform_density, golden(case, "cql_current_log_pi"), golden(case, "cql_next_log_pi")]
        log_probs = torch.tensor(np.concatenate(densities, 1))
    return CriticBatch(
        state=state(DATA["batch.observations"]),
        actions=chunks(DATA["batch.actions"]),
        rewards=torch.tensor(DATA["batch.rewards"]),
        bootstrap=0.99 * torch.tensor(DATA["batch.masks"]),
        returns=torch.tensor(DATA["batch.mc_returns"]),
        next_state=state(DATA["batch.next_observations"]),
        next_actions=chunks(next_actions),
        other_actions=chunks(others),
        other_log_probs=log_probs,
        uniform=torch.arange(others.shape[1]) < 4,
        target_members=subset(case, "td_subset"),
        penalty_members=subset(case, "cql_subset"),
    )


def subset(case: str, name: str) -> list[int] | None:
    return DATA[f"{case}.{name}"].tolist() if f"{case}.{name}" in DATA else None


def make_loss(case: str) -> CalQL:
    flags = CASES[case]
    sampled = flags.get("cql_importance_sample", True)
    tuned = flags.get("cql_autotune_alpha", False)
    config = CalQLConfig(
        alpha=1.0 if tuned else flags.get("cql_alpha", 5.0),
        calibrated=flags.get("use_calql", False),
        bound_uniform=flags.get("calql_bound_random_actions", False),
        importance_sampling=sampled,
        include_data=not sampled,
        count_correction=not sampled,
        target_gap=flags["cql_target_action_gap"] if tuned else None,
        multiplier="softplus",
        backup=BACKUP,
    )
    loss = CalQL(config, *networks(case))
    if tuned:
        loss.raw_multiplier.data.copy_(torch.tensor(golden(case, "alpha_lagrange_raw")))
    return loss


@pytest.mark.parametrize("case", CONSERVATIVE)
def test_logged_scalars_and_loss(case: str) -> None:
    loss = make_loss(case)
    _, info = loss(make_batch(case))
    np.testing.assert_allclose(info["td_loss"], golden(case, "info.td_loss"), **CLOSE)
    np.testing.assert_allclose(info["gap"], golden(case, "info.cql_diff"), **CLOSE)
    np.testing.assert_allclose(info["critic_loss"], golden(case, "info.critic_loss"), **CLOSE)
    np.testing.assert_allclose(info["target"], golden(case, "info.target_qs"), **CLOSE)
    np.testing.assert_allclose(info["q_data"], golden(case, "info.predicted_qs"), **CLOSE)


@pytest.mark.parametrize("case", CONSERVATIVE)
def test_raw_scores_of_the_samples(case: str) -> None:
    batch = make_batch(case)
    scores = networks(case)[0](batch.state, batch.other_actions)[..., 0].detach()
    np.testing.assert_allclose(scores, golden(case, "cql_q_samples"), **CLOSE)


@pytest.mark.parametrize("case", [case for case in CONSERVATIVE if f"{case}.info.calql_bound_rate" in DATA])
def test_bound_rate(case: str) -> None:
    """Published: the 12 samples are the denominator, random ones included and, but for one case, never below."""
    batch = make_batch(case)
    below = torch.tensor(golden(case, "cql_q_samples")) < batch.returns[:, None]
    if batch.penalty_members is not None:
        below = below[list(batch.penalty_members)]
    if not CASES[case].get("calql_bound_random_actions"):
        below = below & ~batch.uniform
    np.testing.assert_allclose(below.float().mean(), golden(case, "info.calql_bound_rate"), **CLOSE)


@pytest.mark.parametrize("case", CONSERVATIVE)
def test_gradient_norm(case: str) -> None:
    loss = make_loss(case)
    loss(make_batch(case))[0].backward()
    squared = sum((parameter.grad**2).sum() for parameter in loss.q.weights.values())
    np.testing.assert_allclose(squared.sqrt(), golden(case, "grad_norm_critic"), **GRADIENT_CLOSE)


def test_full_gradients() -> None:
    loss = make_loss("calql")
    loss(make_batch("calql"))[0].backward()
    for name, expected in ensemble(DATA, "calql.grad.modules_critic").items():
        np.testing.assert_allclose(loss.q.weights[name].grad, expected, **GRADIENT_CLOSE)


def test_autotuned_weight() -> None:
    loss = make_loss("calql_autotune")
    _, info = loss(make_batch("calql_autotune"))
    np.testing.assert_allclose(info["multiplier"], golden("calql_autotune", "info.cql_alpha"), **CLOSE)
    np.testing.assert_allclose(info["multiplier_loss"], golden("calql_autotune", "alpha_loss"), **CLOSE)


def test_redq_without_a_conservative_term() -> None:
    loss = TD(BACKUP, *networks("wsrl_sac_redq"))
    total, info = loss(make_batch("wsrl_sac_redq"))
    np.testing.assert_allclose(info["td_loss"], golden("wsrl_sac_redq", "critic_loss"), **CLOSE)
    np.testing.assert_allclose(info["target"], golden("wsrl_sac_redq", "info.target_qs"), **CLOSE)
    total.backward()
    squared = sum((parameter.grad**2).sum() for parameter in loss.q.weights.values())
    np.testing.assert_allclose(squared.sqrt(), golden("wsrl_sac_redq", "grad_norm_critic"), **GRADIENT_CLOSE)
