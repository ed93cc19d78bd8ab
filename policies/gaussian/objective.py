"""`GaussianObjective`: likelihood of recorded chunks."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from policies.gaussian.config import GaussianConfig
from policies.gaussian.network import GaussianNetwork
from policies.gaussian.policy import KIND
from policies.training import ChunkObjective


class GaussianObjective(ChunkObjective[GaussianConfig]):
    """Trains a Gaussian policy."""

    kind = KIND
    title = "Gaussian policy"

    def make_network(self) -> GaussianNetwork:
        return GaussianNetwork(self.config, self.spec, self.transforms)

    def draw(self, actions: Float[Tensor, "b h a"]) -> tuple[Tensor, ...]:
        """Nothing: the likelihood needs no noise."""
        return ()
