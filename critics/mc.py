"""Regression of Q(s, a) on the Monte-Carlo return: no bootstrap, no target network. A baseline.

With few episodes it memorises them (where things lie tells the episode), and then cannot rank actions: see `critics.calql`.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from critics.batch import CriticBatch
from critics.q_network import QFunction


class MonteCarlo(nn.Module):
    """Fits Q(s, a) to G. `forward` is the loss; it has nothing to configure."""

    def __init__(self, q: QFunction) -> None:
        super().__init__()
        self.q = q

    def forward(self, batch: CriticBatch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """(loss, info) of one batch."""
        outputs = self.q(batch.state, batch.actions[:, None])[:, :, 0]
        loss = self.q.head.loss(outputs, batch.returns.expand(outputs.shape[:-1])).mean(-1).sum()
        values = self.q.head.values(outputs).detach()
        return loss, {"td_loss": loss.detach(), "q_data": values.mean(), "return": batch.returns.mean()}
