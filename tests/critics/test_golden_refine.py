"""Local action optimisation against the published PA-RL code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from critics.refine import climb
from tests.critics.golden import GoldenQ, ensemble, load, state

DATA = load("action_optimisation")


def q(actions: Tensor) -> Tensor:
    network = GoldenQ(ensemble(DATA, "param.modules_critic"), torch.nn.functional.silu)
    return network(state(DATA["state"]), actions)[..., 0].mean(0)


def test_scores_of_the_base_actions() -> None:
    scores = q(torch.tensor(DATA["base_actions"])).detach()
    np.testing.assert_allclose(scores, DATA["q_all_mean"], atol=1e-5)
    best = np.argsort(scores.numpy(), axis=1)[:, -int(DATA["num_keep"]) :]
    kept = np.take_along_axis(DATA["base_actions"], best[..., None], axis=1)
    np.testing.assert_allclose(kept, DATA["td_argmax.candidates_in"], atol=1e-6)


@pytest.mark.parametrize("case", ["td_argmax", "distil"])
def test_climb(case: str) -> None:
    start = torch.tensor(DATA[f"{case}.candidates_in"])
    low, high = torch.tensor(DATA["low"]), torch.tensor(DATA["high"])
    best, best_q, best_step = climb(q, start, low, high, int(DATA["num_steps"]), float(DATA["step_size"]))
    np.testing.assert_allclose(best, DATA[f"{case}.candidates_out"], atol=1e-5)
    np.testing.assert_allclose(best_q.detach(), DATA[f"{case}.q_out_mean"], atol=1e-5)
    np.testing.assert_array_equal(best_step, DATA[f"{case}.best_step"])
