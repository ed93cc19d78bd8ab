"""Temporal-difference learning over chunks, without conservatism. The backup that `critics.calql` also uses.

    y = R + bootstrap * V(s'),   V(s') = max over the base policy's own candidates of the target network

The backup spans the whole executed prefix without bias (Q-chunking, arXiv 2507.07969): what is scored is what was executed.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from critics.batch import CriticBatch
from critics.q_network import QFunction
from critics.terms import next_values, td_target
from steer.errors import ConfigError


@dataclass(frozen=True)
class TDConfig:
    """How targets are made."""

    actions: Literal["max", "mean"] = "max"
    """Over the next actions (Cal-QL: max where its max-target backup is on, else a single action)."""
    members: Literal["own", "min"] = "own"
    """Whose estimate a member backs up: its own, which keeps members independent, or the lowest (Cal-QL, V-GPS, WSRL: min)."""
    subset: int = 0
    """Members that min runs over, drawn anew each step; 0: all (WSRL, PA-RL: 2 of 10)."""
    subset_replacement: bool = False
    """Draw the subset with replacement (WSRL: True, REDQ: False)."""
    entropy_weight: float = 0.0
    """Soft actor-critic's alpha in the backup (Cal-QL: 0)."""
    over_members: Literal["sum", "mean"] = "sum"
    """How losses of members add up: sum trains each as if alone (Cal-QL: sum, WSRL and V-GPS: mean)."""

    def __post_init__(self) -> None:
        if self.subset and self.members == "own":
            raise ConfigError(
                f"a subset of {self.subset} members cannot be drawn where each backs up its own estimate: set members to min"
            )

    def reduce(self, losses: Float[Tensor, " m"]) -> Float[Tensor, ""]:
        """One loss from one per member."""
        return losses.sum() if self.over_members == "sum" else losses.mean()


class TD(nn.Module):
    """Fits Q(s, a) to y. `forward` is the loss."""

    def __init__(self, config: TDConfig, q: QFunction, target: QFunction | None = None) -> None:
        super().__init__()
        self.config = config
        self.q = q
        self.target = frozen_copy(q) if target is None else target

    def forward(self, batch: CriticBatch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """(loss, info) of one batch."""
        outputs = self.q(batch.state, batch.actions[:, None])[:, :, 0]
        targets = backup(self.config, self.target, batch, len(outputs))
        loss = self.config.reduce(self.q.head.loss(outputs, targets).mean(-1))
        values = self.q.head.values(outputs).detach()
        return loss, {"td_loss": loss.detach(), "q_data": values.mean(), "target": targets.mean()}


@torch.no_grad()
def backup(config: TDConfig, target: QFunction, batch: CriticBatch, members: int) -> Float[Tensor, "m b"]:
    """The targets y of so many members; carries no gradient. Of a subset, nothing of the other members is computed."""
    q = target.head.values(target(batch.next_state, batch.next_actions, batch.target_members))
    value = next_values(q, config.members, config.actions, batch.next_log_probs, config.entropy_weight)
    targets = td_target(batch.rewards, batch.bootstrap, value)
    return targets if batch.target_members is None else targets[:1].expand(members, -1)


def frozen_copy(q: QFunction) -> QFunction:
    """A target network: the same weights, without gradients."""
    target = copy.deepcopy(q)
    for parameter in target.parameters():
        parameter.requires_grad_(False)
    return target
