"""The terms that value losses are made of: pure functions of tensors, no networks and no state.

Axes: M members, B transitions, N actions per transition. Values are float32[M, B, N].
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from steer.errors import ConfigError


def td_target(
    rewards: Float[Tensor, " b"], bootstrap: Float[Tensor, " b"], next_values: Float[Tensor, "*m b"]
) -> Float[Tensor, "*m b"]:
    """y = R + bootstrap * V(s'); bootstrap is gamma^n, and 0 where the episode truly ended."""
    return rewards + bootstrap * next_values


def next_values(
    q: Float[Tensor, "m b n"],
    members: Literal["own", "min"],
    actions: Literal["max", "mean"],
    log_probs: Float[Tensor, "b n"] | None = None,
    entropy_weight: float = 0.0,
) -> Float[Tensor, "m b"]:
    """V(s') of N actions sampled there.

    members: "own": each member backs up its own estimate; "min": all the lowest one's (TD3; per action, before the maximum).
    actions: "max" (Cal-QL's max-target backup) or "mean".
    entropy_weight: subtract weight * log_probs of the action backed up (soft actor-critic).
    """
    if members == "min":
        q = q.min(dim=0, keepdim=True).values.expand_as(q)
    value, best = q.max(dim=-1)
    if actions == "mean":
        value = q.mean(dim=-1)
    if not entropy_weight:
        return value
    if log_probs is None:
        raise ConfigError(
            "the entropy backup needs the log-densities of the next actions: give them, or set entropy_weight to 0"
        )
    entropy = log_probs.expand_as(q).gather(-1, best[..., None])[..., 0] if actions == "max" else log_probs.mean(-1)
    return value - entropy_weight * entropy


def cal_ql_bound(
    q: Float[Tensor, "m b n"], returns: Float[Tensor, " b"], bounded: Bool[Tensor, " n"] | None = None
) -> Float[Tensor, "m b n"]:
    """max(Q, G): values below the data's return are already pessimistic enough and get no gradient (Cal-QL, equation 4.1).

    bounded: which of the N actions the bound holds for (as published not for uniformly random ones); None: all.
    """
    floored = torch.maximum(q, returns[:, None])
    return floored if bounded is None else torch.where(bounded, floored, q)


def bound_rate(q: Float[Tensor, "m b n"], returns: Float[Tensor, " b"]) -> Float[Tensor, ""]:
    """Share of the values that lie below the data's return, before the bound."""
    return (q < returns[:, None]).float().mean()


def soft_maximum(
    values: Float[Tensor, "m b n"], temperature: float = 1.0, count_correction: bool = True
) -> Float[Tensor, "m b"]:
    """T log sum exp(values / T) over the actions; with `count_correction` the mean instead of the sum (minus T log N)."""
    value = temperature * torch.logsumexp(values / temperature, dim=-1)
    if count_correction:
        value = value - temperature * math.log(values.shape[-1])
    return value


def conservative_gap(
    out_of_data: Float[Tensor, "m b"],
    in_data: Float[Tensor, "m b"],
    clip: tuple[float, float] = (float("-inf"), float("inf")),
) -> Float[Tensor, " m"]:
    """Mean of clip(soft maximum over other actions - Q(s, a of the data)): what CQL pushes down (arXiv 2006.04779, equation 4)."""
    return (out_of_data - in_data).clamp(*clip).mean(dim=-1)


def random_subset(members: int, size: int, rng: np.random.Generator, replacement: bool) -> Int[np.ndarray, " s"]:
    """Indices of `size` members (REDQ). WSRL draws with replacement, so that both may be the same one; REDQ without."""
    if not 1 <= size <= members:
        raise ConfigError(f"a subset of {size} was asked of {members} members: ask for 1 to {members}")
    return rng.integers(members, size=size) if replacement else rng.permutation(members)[:size]


@torch.no_grad()
def polyak(target: Iterable[Tensor], online: Iterable[Tensor], rate: float) -> None:
    """target <- rate * online + (1 - rate) * target, in place."""
    torch._foreach_lerp_(list(target), list(online), rate)  # the one fused call there is; a loop is 10 times slower
