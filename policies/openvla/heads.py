"""`Head`: how an OpenVLA model turns patches and a prompt into numbers in [-1, 1]; `TokenHead` is the published one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from policies.openvla.decode import Prefix, decode, prefill
from policies.openvla.model import OpenVlaModel
from policies.openvla.sampling import ActionChooser, candidate_quantiles
from policies.openvla.tokens import ActionBins


class Head(Protocol):
    """horizon: H; num_positions: what it appends to the sequence; stochastic, temperature: as in `PolicySpec`."""

    horizon: int
    num_positions: int
    stochastic: bool
    temperature: bool

    def encode(
        self,
        patches: Float[Tensor, "b p e"],
        prompts: Sequence[Int[np.ndarray, " n"]],
        proprio: Float[np.ndarray, "b s"] | None,
    ) -> Any:
        """What does not depend on the candidate. proprio: in [-1, 1], for heads that want it."""
        ...

    def sample(
        self, context: Any, num_samples: int, seeds: Int[np.ndarray, " b"], temperature: float
    ) -> Float[np.ndarray, "b k h a"]:
        """K chunks per row, float64 in the model's units."""
        ...


@dataclass(frozen=True)
class Group:
    """Rows of a batch whose prompts have the same length, so that no padding is needed."""

    rows: list[int]
    prefix: Prefix


class TokenHead:
    """One action of A tokens, one after the other. Implements `Head`."""

    horizon = 1
    stochastic = True
    temperature = True

    def __init__(self, model: OpenVlaModel, bins: ActionBins, axes: int, top_k: int = 0) -> None:
        self.num_positions = axes
        self.differing = 0
        """Tokens of candidate 0 so far that a choice among all tokens would have made otherwise."""
        self._model, self._bins, self._top_k = model, bins, top_k

    def encode(
        self,
        patches: Float[Tensor, "b p e"],
        prompts: Sequence[Int[np.ndarray, " n"]],
        proprio: Float[np.ndarray, "b s"] | None = None,
    ) -> list[Group]:
        groups = []
        for rows in equal_lengths(prompts):
            ids = torch.from_numpy(np.stack([prompts[row] for row in rows])).to(self._model.device)
            embeds = self._model.embed(patches[rows], ids)
            groups.append(Group(rows, prefill(self._model.language_model.model, embeds)))
        return groups

    def sample(
        self, context: list[Group], num_samples: int, seeds: Int[np.ndarray, " b"], temperature: float
    ) -> Float[np.ndarray, "b k 1 a"]:
        ids = np.empty((len(seeds), num_samples, self.num_positions), np.int64)
        language_model = self._model.language_model
        for group in context:
            quantiles = candidate_quantiles(seeds[group.rows], num_samples, self.num_positions)
            chooser = ActionChooser(
                language_model.lm_head.weight,
                self._bins.first,
                self._bins.bins,
                quantiles.to(self._model.device),
                temperature,
                self._top_k,
            )
            tokens = decode(language_model.model, group.prefix, num_samples, self.num_positions, chooser)
            ids[group.rows] = tokens.cpu().numpy()
            self.differing += chooser.differing
        return self._bins.decode(ids)[:, :, None]


def equal_lengths(prompts: Sequence[Int[np.ndarray, " n"]]) -> list[list[int]]:
    """Rows grouped by the length of their prompt, in the order of their first row."""
    groups: dict[int, list[int]] = {}
    for row, ids in enumerate(prompts):
        groups.setdefault(len(ids), []).append(row)
    return list(groups.values())
