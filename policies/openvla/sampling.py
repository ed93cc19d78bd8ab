"""`ActionChooser`: which token comes next, among the action tokens alone.

Candidate 0 takes the likeliest one, whatever the seed and the temperature. Candidate k > 0 inverts the cumulative distribution at
one number per (seed, k, step): neighbouring ids are neighbouring bins, so a difference in rounding can move a number by one bin
and no further.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from steer.noise import candidate_noise


class ActionChooser:
    """A `policies.openvla.decode.Chooser`; `differing` counts where the likeliest of all tokens is no action token's equal.

    head: weight [V, E] of the output layer; first, bins: the action tokens are `first ... first + bins - 1`.
    quantiles: float64[B, K, S] in (0, 1). top_k: only so many of the likeliest tokens are drawn from; 0 is all.
    """

    def __init__(
        self,
        head: Float[Tensor, "v e"],
        first: int,
        bins: int,
        quantiles: Float[Tensor, "b k s"],
        temperature: float = 1.0,
        top_k: int = 0,
    ) -> None:
        self._head, self._actions = head, head[first : first + bins]
        self._first = first
        self._quantiles, self._temperature, self._top_k = quantiles, temperature, top_k
        self._differing: list[Tensor] = []

    def __call__(self, step: int, hidden: Float[Tensor, "b k e"]) -> Int[Tensor, "b k"]:
        logits = (hidden @ self._actions.T).float()
        greedy = logits[:, 0].argmax(-1)
        if len(self._head) > len(self._actions):
            unmasked = (hidden[:, 0] @ self._head.T).argmax(-1)
            self._differing.append(unmasked != greedy + self._first)
        # Without noise all candidates are candidate 0: rounding must not part them.
        index = greedy[:, None].expand(logits.shape[:2])
        if self._temperature > 0 and logits.shape[1] > 1:
            drawn = draw(logits[:, 1:], self._quantiles[:, 1:, step], self._temperature, self._top_k)
            index = torch.cat([greedy[:, None], drawn], dim=1)
        return index + self._first

    @property
    def differing(self) -> int:
        """Tokens of candidate 0 that a choice among all tokens would have made otherwise."""
        return int(torch.stack(self._differing).sum()) if self._differing else 0


def draw(
    logits: Float[Tensor, "b k n"], quantiles: Float[Tensor, "b k"], temperature: float, top_k: int = 0
) -> Int[Tensor, "b k"]:
    """Indices at these quantiles of softmax(logits / temperature), in the order of the index."""
    if 0 < top_k < logits.shape[-1]:
        lowest = logits.topk(top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < lowest, float("-inf"))
    cumulative = (logits.double() / temperature).softmax(-1).cumsum(-1)
    index = (cumulative < quantiles[..., None] * cumulative[..., -1:]).sum(-1)
    # Rounding may leave the quantile above the whole sum.
    return index.clamp(max=logits.shape[-1] - 1)


def candidate_quantiles(seeds: Int[np.ndarray, " b"], num_samples: int, num_tokens: int) -> Float[Tensor, "b k s"]:
    """One number in (0, 1) per candidate and token, float64: the candidate noise through the normal distribution."""
    noise = torch.from_numpy(candidate_noise(seeds, num_samples, (num_tokens,)))
    quantiles: Tensor = torch.special.ndtr(noise.double())
    return quantiles
