"""`QNetwork`: features, ensemble and head put together, from a state and K chunks to values.

Two ways in: `forward` for training (one pass), and `embed` then `score` for serving, where the state is encoded once and asked
about many times.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from critics.features import Raw, ReachedPoses
from critics.heads import Head
from critics.networks import Ensemble


class State(NamedTuple):
    """B states: in the robot's units, for features that compute with metres, and normalised, for the network."""

    raw: Float[Tensor, "b n"]
    normalised: Float[Tensor, "b s"]

    def to(self, device: torch.device) -> State:
        return State(self.raw.to(device), self.normalised.to(device))


class Embedded(NamedTuple):
    """What does not depend on the candidate: the raw state, and each member's share of its first layer."""

    raw: Float[Tensor, "b n"]
    parts: Float[Tensor, "m b w"]


class QFunction(Protocol):
    """What a loss needs of a network."""

    head: Head

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def __call__(
        self, state: State, actions: Float[Tensor, "b k e a"], members: Sequence[int] | None = None
    ) -> Float[Tensor, "m b k o"]:
        """Head outputs; of all members unless some are named."""
        ...


class QNetwork(nn.Module):
    """M independent members over one set of features."""

    def __init__(
        self, features: Raw | ReachedPoses, head: Head, members: int, normalised_size: int, hidden: Sequence[int]
    ) -> None:
        super().__init__()
        self.features = features
        self.head = head
        self.ensemble = Ensemble(
            members,
            normalised_size + features.state_size,
            features.action_size,
            hidden,
            head.outputs,
            head.initial_bias(),
        )

    def forward(
        self, state: State, actions: Float[Tensor, "b k e a"], members: Sequence[int] | None = None
    ) -> Float[Tensor, "m b k o"]:
        """Head outputs; `head.values` turns them into Q. members: these alone, for whom alone anything is computed."""
        return self._outputs(self.embed(state, members), actions, members)

    def embed(self, state: State, members: Sequence[int] | None = None) -> Embedded:
        """The candidate-free part, once."""
        inputs = torch.cat((state.normalised, self.features.of_state(state.raw)), -1)
        return Embedded(state.raw, self.ensemble.embed(inputs, members))

    def score(self, embedded: Embedded, actions: Float[Tensor, "b k e a"]) -> Float[Tensor, "m b k"]:
        """Q of every member and candidate; differentiable in the actions."""
        return self.head.values(self._outputs(embedded, actions))

    def _outputs(
        self, embedded: Embedded, actions: Float[Tensor, "b k e a"], members: Sequence[int] | None = None
    ) -> Float[Tensor, "m b k o"]:
        outputs: Tensor = self.ensemble(embedded.parts, self.features(embedded.raw, actions), members)
        return outputs
