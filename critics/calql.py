"""Cal-QL (Nakamoto et al. 2023, arXiv 2303.05479): conservative Q-learning, calibrated by the data's Monte-Carlo return.

    L = (Q(s, a) - y)^2 + alpha [ T log mean_k exp(max(Q(s, a_k), G) / T) - Q(s, a) ]

The a_k are what the policy proposes at s: the critic is asked about these later, so these it must not overestimate. The floor G
stops it from pushing them below what the data is known to return, without which it merely learns what looks like data
(`calibrated=False`, plain CQL, arXiv 2006.04779). The flags reproduce the published variants, named beside each field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from critics.batch import CriticBatch
from critics.q_network import QFunction
from critics.td import TDConfig, backup, frozen_copy
from critics.terms import bound_rate, cal_ql_bound, conservative_gap, soft_maximum
from steer.errors import ConfigError


@dataclass(frozen=True)
class CalQLConfig:
    """Weights and variants of the conservative term."""

    alpha: float = 0.05
    """Weight, of the order of value differences between actions: returns in [0, 1] (paper: 5 for -500..0; PA-RL: 0.005)."""
    calibrated: bool = True
    """Floor by the Monte-Carlo return (False: plain CQL)."""
    bound_uniform: bool = False
    """Floor uniformly random actions, too (Cal-QL: False; a flag of WSRL)."""
    temperature: float = 1.0
    """T of the soft maximum (paper: 1)."""
    importance_sampling: bool = False
    """Subtract each action's log-density (Cal-QL: True; impossible for diffusion candidates, which have none)."""
    include_data: bool = False
    """Count the data's action among the others (Cal-QL and jaxrl_m without importance sampling: True)."""
    count_correction: bool = True
    """Log mean instead of log sum over actions (Cal-QL: False; jaxrl_m: True without importance sampling)."""
    clip_gap: tuple[float, float] | None = None
    """Limits of the gap per transition (paper: none)."""
    target_gap: float | None = None
    """Tune the weight by a Lagrange multiplier so that the gap stays near this (Cal-QL on AntMaze: 0.8; None: fixed weight)."""
    multiplier: Literal["exp", "softplus"] = "exp"
    """Form of the multiplier (Cal-QL: exp, at most 1e6; jaxrl_m: softplus)."""
    backup: TDConfig = field(default_factory=TDConfig)
    """How targets are made."""


class CalQL(nn.Module):
    """Temporal differences plus the conservative term. `forward` is the loss."""

    def __init__(self, config: CalQLConfig, q: QFunction, target: QFunction | None = None) -> None:
        super().__init__()
        self.config = config
        self.q = q
        self.target = frozen_copy(q) if target is None else target
        # Cal-QL's starting value of the logarithm.
        self.raw_multiplier = nn.Parameter(torch.tensor(1.0)) if config.target_gap is not None else None

    def forward(self, batch: CriticBatch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """(loss, info) of one batch; with a multiplier the loss holds the multiplier's own part."""
        config, head = self.config, self.q.head
        outputs = self.q(batch.state, torch.cat((batch.actions[:, None], batch.other_actions), 1))
        targets = backup(config.backup, self.target, batch, len(outputs))
        td_loss = config.backup.reduce(head.loss(outputs[:, :, 0], targets).mean(-1))
        values = head.values(outputs)
        gap = self.gap(values[:, :, 0], values[:, :, 1:], batch)
        weight = config.alpha * head.penalty_scale
        multiplier, multiplier_loss = self._multiplier(gap, weight)
        penalty = config.backup.reduce(multiplier * weight * (gap - (config.target_gap or 0.0)))
        critic_loss = td_loss + penalty
        info = {
            "critic_loss": critic_loss,
            "td_loss": td_loss,
            "penalty": penalty,
            "multiplier": multiplier,
            "multiplier_loss": multiplier_loss,
            "gap": gap.mean(),
            "target": targets.mean(),
            **_diagnostics(values, batch),
        }
        return critic_loss + multiplier_loss, {name: value.detach() for name, value in info.items()}

    def gap(
        self, data: Float[Tensor, "m b"], others: Float[Tensor, "m b k"], batch: CriticBatch
    ) -> Float[Tensor, " m"]:
        """How far the soft maximum over other actions lies above the data's, per member."""
        config = self.config
        if batch.penalty_members is not None:
            chosen = list(batch.penalty_members)
            data, others = data[chosen], others[chosen]
        if config.calibrated:
            bounded = None if config.bound_uniform or batch.uniform is None else ~batch.uniform
            others = cal_ql_bound(others, batch.returns, bounded)
        if config.importance_sampling:
            if batch.other_log_probs is None:
                raise ConfigError(
                    "importance sampling needs log-densities of the other actions: give them, or switch it off"
                )
            others = others - batch.other_log_probs
        if config.include_data:
            others = torch.cat((others, data[..., None]), -1)
        highest = soft_maximum(others, config.temperature, config.count_correction)
        return conservative_gap(highest, data, config.clip_gap or (float("-inf"), float("inf")))

    def _multiplier(self, gap: Float[Tensor, " m"], weight: float) -> tuple[Tensor, Tensor]:
        """The multiplier (no gradient), and the loss that raises it while the gap is above its target."""
        if self.raw_multiplier is None or self.config.target_gap is None:
            return torch.ones(()), torch.zeros(())
        if self.config.multiplier == "exp":
            value = self.raw_multiplier.exp().clamp(0.0, 1e6)
        else:
            value = nn.functional.softplus(self.raw_multiplier)
        return value.detach(), -(value * weight * (gap.detach() - self.config.target_gap)).mean()


@torch.no_grad()
def _diagnostics(values: Float[Tensor, "m b k"], batch: CriticBatch) -> dict[str, Tensor]:
    """What tells a sound critic from one that is pushed too hard or not at all."""
    data, others = values[:, :, 0], values[:, :, 1:]
    bounded = others if batch.uniform is None else others[..., ~batch.uniform]
    return {
        "q_data": data.mean(),
        "q_other": others.mean(),
        "spread": others.std(-1).mean(),
        "return": batch.returns.mean(),
        "bound_rate": bound_rate(bounded, batch.returns),
    }
