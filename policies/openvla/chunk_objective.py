"""`TokenChunkObjective`: next-token prediction on recorded chunks."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from policies.openvla.chunk_config import TokenChunkConfig
from policies.openvla.chunk_network import TokenChunkNetwork
from policies.openvla.chunk_policy import KIND
from policies.training import ChunkObjective


class TokenChunkObjective(ChunkObjective[TokenChunkConfig]):
    """Trains a small token policy."""

    kind = KIND
    title = "Token policy"
    inpaints = True

    def make_network(self) -> TokenChunkNetwork:
        return TokenChunkNetwork(self.config, self.spec, self.transforms)

    def draw(self, actions: Float[Tensor, "b h a"]) -> tuple[Int[Tensor, "b s"]]:
        """The chunks' tokens int64[B, H x A]; nothing is random."""
        return (torch.from_numpy(self.network.bins.encode(actions.flatten(1).numpy())),)
