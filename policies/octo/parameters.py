"""`Parameters`: a flat view of a checkpoint's arrays, "a/b/c" -> array, from which each module takes its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from numpy.typing import NDArray

from policies.octo.layers import Dense, Norm

Weights = Mapping[str, NDArray[np.float32]]
Tree = TypeVar("Tree")


class Parameters:
    """Arrays below a prefix. They stay numpy until the model moves all of them to its device at once."""

    def __init__(self, weights: Weights, prefix: str = "") -> None:
        self._weights = weights
        self._prefix = prefix

    def __getitem__(self, path: str) -> Any:
        return self._weights[self._prefix + path]

    def below(self, path: str) -> Parameters:
        return Parameters(self._weights, f"{self._prefix}{path}/")

    def dense(self, path: str) -> Dense:
        return Dense(self[f"{path}/kernel"], self[f"{path}/bias"])

    def norm(self, path: str) -> Norm:
        return Norm(self[f"{path}/scale"], self[f"{path}/bias"])


def stacked(trees: Sequence[Tree], like: Tree) -> Tree:
    """Arrays of alike layers along a new leading axis; none at all gives that axis no entries."""

    def stack(first: NDArray[np.float32], *others: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.stack(others) if others else np.empty((0, *first.shape), first.dtype)

    result: Tree = jax.tree.map(stack, like, *trees)
    return result
