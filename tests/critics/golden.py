"""Loads the golden losses, and rebuilds the small networks they were computed with."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from critics.heads import MeanSquared
from critics.q_network import State

FOLDER = Path(__file__).parent.parent / "golden" / "losses"
CLOSE = {"rtol": 2e-5, "atol": 2e-5}
GRADIENT_CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@functools.cache
def load(name: str) -> Mapping[str, np.ndarray]:
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


def settings(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return loaded


class GoldenQ(nn.Module):
    """Multilayer perceptrons with a leading member axis on every weight; [B, K, 1, A] actions to [M, B, K, 1] outputs."""

    def __init__(self, weights: Mapping[str, np.ndarray], activation: Any = torch.relu) -> None:
        super().__init__()
        self.head = MeanSquared(weight=1.0)
        self.activation = activation
        self.weights = nn.ParameterDict({name: nn.Parameter(torch.tensor(value)) for name, value in weights.items()})

    def forward(self, state: State, actions: Tensor, members: Sequence[int] | None = None) -> Tensor:
        actions = actions.flatten(2)
        x = torch.cat((state.raw[:, None].expand(-1, actions.shape[1], -1), actions), -1)[None]
        for layer in (0, 1):
            x = x @ self.weights[f"kernel{layer}"][:, None] + self.weights[f"bias{layer}"][:, None, None]
            if f"scale{layer}" in self.weights:
                x = nn.functional.layer_norm(x, x.shape[-1:], eps=1e-6)
                x = x * self.weights[f"scale{layer}"][:, None, None] + self.weights[f"shift{layer}"][:, None, None]
            x = self.activation(x)
        outputs: Tensor = x @ self.weights["kernel2"][:, None] + self.weights["bias2"][:, None, None]
        return outputs if members is None else outputs[list(members)]


def twin(prefix: str = "qf", case: str = "") -> dict[str, np.ndarray]:
    """Weights (or gradients) of the two separate networks, stacked."""
    data = load("calql_twin")
    lead = f"{case}." if case else ""
    return {
        f"{kind}{layer}": np.stack(
            [data[f"{lead}{prefix}{i}.params.FullyConnectedNetwork_0.Dense_{layer}.{kind}"] for i in (1, 2)]
        )
        for layer in (0, 1, 2)
        for kind in ("kernel", "bias")
    }


def ensemble(data: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Weights (or gradients) of the vmapped ensemble; the last layer is one for all members."""
    weights = {"kernel2": data[f"{prefix}.Dense_0.kernel"][None], "bias2": data[f"{prefix}.Dense_0.bias"][None]}
    for layer in (0, 1):
        for kind in ("kernel", "bias"):
            weights[f"{kind}{layer}"] = data[f"{prefix}.network.Dense_{layer}.{kind}"]
        if f"{prefix}.network.LayerNorm_{layer}.scale" in data:
            weights[f"scale{layer}"] = data[f"{prefix}.network.LayerNorm_{layer}.scale"]
            weights[f"shift{layer}"] = data[f"{prefix}.network.LayerNorm_{layer}.bias"]
    return weights


def state(observations: np.ndarray) -> State:
    return State(torch.tensor(observations), torch.tensor(observations))


def chunks(actions: np.ndarray) -> Tensor:
    """[..., A] actions as chunks of one step."""
    return torch.tensor(actions)[..., None, :]
