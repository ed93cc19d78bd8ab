"""HL-Gauss against independent and published values; labels and returns against the published data code."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from critics.heads import HLGauss, HLGaussConfig
from tests.critics.golden import CLOSE, load
from tests.critics.toys import frames_of

DATA = load("distributional_iql_mc")
RANGES = ("m51_v-50_0", "m128_v-100_0", "m21_v-1_1")


def make_head(case: str, form: str) -> HLGauss:
    low, high, bins = DATA[f"hlgauss.{case}.range_bins"]
    return HLGauss(HLGaussConfig(low=float(low), high=float(high), bins=int(bins), form=form, initial=float(high)))


@pytest.mark.parametrize("case", RANGES)
@pytest.mark.parametrize(
    ("form", "name", "tolerance"), [("paper", "probs_paper", 1e-6), ("jaxrl_m", "probs_upstream_jax", 2e-5)]
)
def test_target_probabilities(case: str, form: str, name: str, tolerance: float) -> None:
    targets = torch.tensor(DATA[f"hlgauss.{case}.target"])
    probabilities = make_head(case, form).target_probabilities(targets)
    np.testing.assert_allclose(probabilities, DATA[f"hlgauss.{case}.{name}"], rtol=2e-5, atol=tolerance)


@pytest.mark.parametrize("case", RANGES)
@pytest.mark.parametrize(
    ("form", "name"), [("paper", "cross_entropy_paper"), ("jaxrl_m", "cross_entropy_upstream_jax")]
)
def test_values_and_cross_entropy(case: str, form: str, name: str) -> None:
    head = make_head(case, form)
    logits, targets = torch.tensor(DATA[f"hlgauss.{case}.logits"]), torch.tensor(DATA[f"hlgauss.{case}.target"])
    np.testing.assert_allclose(head.values(logits), DATA[f"hlgauss.{case}.q_from_logits"], **CLOSE)
    np.testing.assert_allclose(head.loss(logits, targets.expand(2, -1)), DATA[f"hlgauss.{case}.{name}"], **CLOSE)


@pytest.mark.parametrize("case", ["L12_k3_g098", "L2_k3_g098", "L40_k1_g099"])
def test_monte_carlo_returns(case: str) -> None:
    """The published labels of a success: rewards -1 and, on the last k steps, 0; the mask only cuts where rewards are 0."""
    reward, gamma = DATA[f"mc.{case}.reward"], float(DATA[f"mc.{case}.len_npos_gamma"][2])
    frames = frames_of([reward])
    np.testing.assert_allclose(frames.mc_returns(gamma)[:-1], DATA[f"mc.{case}.mc_return"], **CLOSE)
