"""`CriticBatch`: everything a value loss reads. A loss is a pure function of its networks and one of these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from critics.q_network import State


@dataclass(frozen=True)
class CriticBatch:
    """B transitions with the further actions that targets and penalties ask about.

    actions: the data's, [B, E, A]. rewards: sum of gamma^j r over the prefix. bootstrap: gamma^n, 0 at a true terminal.
    returns: Monte-Carlo return of the data's episode from here.
    next_actions [B, N, E, A]: actions to back up at the next state. other_actions [B, K, E, A]: actions at this state that
    the conservative term pushes down.
    The log-densities serve importance sampling and entropy backups; candidates of a diffusion policy have none.
    uniform: which of the K other actions were drawn uniformly at random (the Cal-QL bound leaves these out).
    target_members, penalty_members: subset of the ensemble to use (REDQ); None: all.
    """

    state: State
    actions: Float[Tensor, "b e a"]
    rewards: Float[Tensor, " b"]
    bootstrap: Float[Tensor, " b"]
    returns: Float[Tensor, " b"]
    next_state: State
    next_actions: Float[Tensor, "b n e a"]
    other_actions: Float[Tensor, "b k e a"]
    next_log_probs: Float[Tensor, "b n"] | None = None
    other_log_probs: Float[Tensor, "b k"] | None = None
    uniform: Bool[Tensor, " k"] | None = None
    target_members: Sequence[int] | None = None
    penalty_members: Sequence[int] | None = None
