"""The Cal-QL loss against the published code with two separate networks: every flag, Adam and Polyak.

Gradients of the networks are compared in `test_golden_ensemble`: those stored here belong to other random draws than the stored
losses (each member's implies targets of its own), so that they serve as the input of Adam alone.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from critics.batch import CriticBatch
from critics.calql import CalQL, CalQLConfig
from critics.td import TD, TDConfig, backup
from critics.terms import bound_rate, cal_ql_bound, polyak
from tests.critics.golden import CLOSE, GRADIENT_CLOSE, GoldenQ, chunks, load, settings, state, twin

CASES = settings("calql_twin")
CONSERVATIVE = [name for name, case in CASES.items() if case["calql"] is not None]
DATA = load("calql_twin")


def golden(case: str, name: str) -> np.ndarray:
    return DATA[f"{case}.{name}"]


def make_batch(case: str) -> CriticBatch:
    """The stored batch; candidates in the published order: random, [data], next, current."""
    next_actions, next_log_probs = golden(case, "new_next_actions"), golden(case, "next_log_pi")
    if next_actions.ndim == 2:
        next_actions = next_actions[:, None]
    # Stored for the chosen action only; any of the N then stands for it.
    log_probs = torch.tensor(next_log_probs)[:, None].expand(next_actions.shape[:2])
    others: dict[str, Any] = {"other_actions": chunks(np.zeros((6, 0, 3), np.float32))}
    if case in CONSERVATIVE:
        groups = [golden(case, f"cql_{which}_actions") for which in ("random", "next", "current")]
        uniform_density = np.full((6, 4), 3 * math.log(0.5), np.float32)
        densities = [uniform_density, golden(case, "cql_next_log_pis"), golden(case, "cql_current_log_pis")]
        others = {
            "other_actions": chunks(np.concatenate(groups, 1)),
            "other_log_probs": torch.tensor(np.concatenate(densities, 1)),
            "uniform": torch.arange(12) < 4,
        }
    return CriticBatch(
        state=state(DATA["batch.observations"]),
        actions=chunks(DATA["batch.actions"]),
        rewards=torch.tensor(DATA["batch.rewards"]),
        bootstrap=0.99 * (1 - torch.tensor(DATA["batch.dones"])),
        returns=torch.tensor(DATA["batch.mc_returns"]),
        next_state=state(DATA["batch.next_observations"]),
        next_actions=chunks(next_actions),
        next_log_probs=log_probs,
        **others,
    )


def backup_config(case: str) -> TDConfig:
    entropy = float(golden(case, "alpha")) if CASES[case]["cfg"].get("backup_entropy") else 0.0
    return TDConfig(members="min", entropy_weight=entropy, over_members="sum")


def make_loss(case: str) -> CalQL:
    flags = CASES[case]["cfg"]
    sampled = flags.get("cql_importance_sample", True)
    clip = (flags["cql_clip_diff_min"], flags["cql_clip_diff_max"]) if "cql_clip_diff_min" in flags else None
    config = CalQLConfig(
        alpha=CASES[case]["weight"],
        calibrated=CASES[case]["calql"],
        temperature=flags.get("cql_temp", 1.0),
        importance_sampling=sampled,
        include_data=not sampled,
        count_correction=False,
        clip_gap=clip,
        target_gap=flags["cql_target_action_gap"] if flags.get("cql_lagrange") else None,
        multiplier="exp",
        backup=backup_config(case),
    )
    return CalQL(config, GoldenQ(twin()), GoldenQ(twin("target_qf")))


@pytest.mark.parametrize("case", CASES)
def test_targets(case: str) -> None:
    targets = backup(backup_config(case), GoldenQ(twin("target_qf")), make_batch(case), 2)
    np.testing.assert_allclose(targets.numpy(), np.stack([golden(case, "td_target")] * 2), **CLOSE)


@pytest.mark.parametrize("case", CONSERVATIVE)
def test_gap_penalty_and_loss(case: str) -> None:
    loss = make_loss(case)
    batch = make_batch(case)
    total, info = loss(batch)
    outputs = loss.q(batch.state, torch.cat((batch.actions[:, None], batch.other_actions), 1))[..., 0]
    gap = loss.gap(outputs[:, :, 0], outputs[:, :, 1:], batch).detach().numpy()
    np.testing.assert_allclose(gap, [golden(case, f"cql_qf{i}_diff") for i in (1, 2)], **CLOSE)
    bellman = sum(golden(case, f"qf{i}_bellman_loss") for i in (1, 2))
    np.testing.assert_allclose(info["td_loss"], bellman, **CLOSE)
    np.testing.assert_allclose(info["penalty"], sum(golden(case, f"cql_min_qf{i}_loss") for i in (1, 2)), **CLOSE)
    np.testing.assert_allclose(info["critic_loss"], sum(golden(case, f"qf{i}_loss") for i in (1, 2)), **CLOSE)
    np.testing.assert_allclose(info["multiplier_loss"], golden(case, "alpha_prime_loss"), **CLOSE)
    np.testing.assert_allclose(total.detach(), info["critic_loss"] + info["multiplier_loss"], **CLOSE)


@pytest.mark.parametrize("case", CONSERVATIVE)
def test_bound_and_its_rate(case: str) -> None:
    batch = make_batch(case)
    outputs = GoldenQ(twin())(batch.state, batch.other_actions)[..., 0].detach()
    bounded = cal_ql_bound(outputs, batch.returns, ~batch.uniform) if CASES[case]["calql"] else outputs
    for part, name in enumerate(("rand", "next_actions", "current_actions")):
        expected = np.stack([golden(case, f"cql_q{i}_{name}") for i in (1, 2)])
        np.testing.assert_allclose(bounded[..., 4 * part : 4 * part + 4].numpy(), expected, **CLOSE)
    rates = [bound_rate(outputs[i - 1 : i, :, 8:], batch.returns) for i in (1, 2)]
    np.testing.assert_allclose(rates, [golden(case, f"bound_rate_cql_q{i}_current_actions") for i in (1, 2)], **CLOSE)


def test_gradient_of_the_lagrange_multiplier() -> None:
    loss = make_loss("mtb_is_calql_lagrange")
    loss(make_batch("mtb_is_calql_lagrange"))[0].backward()
    expected = golden("mtb_is_calql_lagrange", "grad.log_alpha_prime")
    np.testing.assert_allclose(loss.raw_multiplier.grad, expected, **GRADIENT_CLOSE)


def test_without_a_conservative_term() -> None:
    loss = TD(backup_config("sac_only"), GoldenQ(twin()), GoldenQ(twin("target_qf")))
    _, info = loss(make_batch("sac_only"))
    np.testing.assert_allclose(info["td_loss"], sum(golden("sac_only", f"qf{i}_loss") for i in (1, 2)), **CLOSE)


def test_adam_and_polyak_after_one_step() -> None:
    loss = make_loss("mtb_is_calql")
    optimizer = torch.optim.Adam(loss.q.parameters(), 3e-4, fused=True)
    for name, gradient in twin("grad.qf", "mtb_is_calql").items():
        loss.q.weights[name].grad = torch.tensor(gradient)
    optimizer.step()
    polyak(loss.target.parameters(), loss.q.parameters(), 0.005)
    for name, expected in twin("after_adam.qf", "mtb_is_calql").items():
        np.testing.assert_allclose(loss.q.weights[name].detach(), expected, **CLOSE)
    for name, expected in twin("after_polyak.target_qf", "mtb_is_calql").items():
        np.testing.assert_allclose(loss.target.weights[name].detach(), expected, **CLOSE)
