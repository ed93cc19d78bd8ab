"""The Q ensemble: M independent multilayer perceptrons over one state and K candidate chunks.

Each member is concat(state, action) -> [linear, LayerNorm, GELU] x layers -> head. Members share nothing, the last layer
included: a shared one correlates their errors. The first linear layer is split into its state and its action columns, so that
the state's share is computed once per observation and added to all K candidates. Members are looped over: on a CPU that was
measured to be faster than batched products over members.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Member(nn.Module):
    """One Q network. Inputs are features; see `critics.features`."""

    def __init__(self, state_size: int, action_size: int, hidden: Sequence[int], outputs: int, bias: Tensor) -> None:
        super().__init__()
        self.from_state = nn.Linear(state_size, hidden[0])
        self.from_action = nn.Linear(action_size, hidden[0], bias=False)
        self._scale_as_one_layer(state_size + action_size)
        layers: list[nn.Module] = [nn.LayerNorm(hidden[0]), nn.GELU()]
        for width, following in itertools.pairwise(hidden):
            layers += [nn.Linear(width, following), nn.LayerNorm(following), nn.GELU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(hidden[-1], outputs)
        self.head.bias.data.copy_(bias)

    def embed(self, state: Float[Tensor, "b s"]) -> Float[Tensor, "b w"]:
        """The part of the first layer that does not depend on the candidate."""
        embedded: Tensor = self.from_state(state)
        return embedded

    def forward(self, embedded: Float[Tensor, "b w"], actions: Float[Tensor, "b k n"]) -> Float[Tensor, "b k o"]:
        """Head outputs of every candidate."""
        outputs: Tensor = self.head(self.body(self.from_action(actions) + embedded[:, None]))
        return outputs

    def _scale_as_one_layer(self, fan_in: int) -> None:
        """Initialise both halves as the columns of one linear layer, with torch's default for its whole input."""
        bound = fan_in**-0.5
        for parameter in (self.from_state.weight, self.from_state.bias, self.from_action.weight):
            nn.init.uniform_(parameter, -bound, bound)


class Ensemble(nn.Module):
    """M members with weights of their own."""

    def __init__(
        self,
        members: int,
        state_size: int,
        action_size: int,
        hidden: Sequence[int],
        outputs: int,
        bias: Float[Tensor, " o"],
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(Member(state_size, action_size, hidden, outputs, bias) for _ in range(members))

    def embed(self, state: Float[Tensor, "b s"], members: Sequence[int] | None = None) -> Float[Tensor, "m b w"]:
        """Every member's share of the first layer that only the state decides. members: these alone, and in this order."""
        return torch.stack([member.embed(state) for member in self._chosen(members)])

    def forward(
        self, embedded: Float[Tensor, "m b w"], actions: Float[Tensor, "b k n"], members: Sequence[int] | None = None
    ) -> Float[Tensor, "m b k o"]:
        """Head outputs of every member and candidate. members: those that `embedded` is of."""
        chosen = self._chosen(members)
        return torch.stack([member(part, actions) for member, part in zip(chosen, embedded, strict=True)])

    def _chosen(self, members: Sequence[int] | None) -> list[Member]:
        every = cast(list[Member], list(self.members))
        return every if members is None else [every[number] for number in members]
