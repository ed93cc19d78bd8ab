"""`TokenChunkObjective`: next-token prediction on recorded chunks, of the whole network or of low-rank adapters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from policies.openvla.chunk_config import TokenChunkConfig
from policies.openvla.chunk_network import TokenChunkNetwork
from policies.openvla.chunk_policy import KIND
from policies.openvla.lora import add_adapters, merged
from policies.training import ChunkObjective
from steer.errors import ConfigError

if TYPE_CHECKING:
    from steer.checkpoints import Checkpoint
    from steer.data.frames import Frames


class TokenChunkObjective(ChunkObjective[TokenChunkConfig]):
    """Trains a small token policy."""

    kind = KIND
    title = "Token policy"
    inpaints = True

    def __init__(
        self, config: TokenChunkConfig, frames: Frames, seed: int = 0, start: Checkpoint | None = None
    ) -> None:
        if config.lora_rank and start is None:
            raise ConfigError(
                f"lora_rank is {config.lora_rank}, but adapters change a trained model: give a checkpoint to start from, or 0"
            )
        super().__init__(config, frames, seed, start)
        if config.lora_rank:
            self._adapt(seed)

    def make_network(self) -> TokenChunkNetwork:
        return TokenChunkNetwork(self.config, self.spec, self.transforms)

    def draw(self, actions: Float[Tensor, "b h a"]) -> tuple[Int[Tensor, "b s"]]:
        """The chunks' tokens int64[B, H x A]; nothing is random."""
        return (torch.from_numpy(self.network.bins.encode(actions.flatten(1).numpy())),)

    def _adapt(self, seed: int) -> None:
        """Adapters, and an optimiser and an average of them alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            add_adapters(self.network, self.network.language_model, self.config.lora_rank)
        self.optimizer = torch.optim.AdamW(
            self._trained(), self.config.learning_rate, weight_decay=self.config.weight_decay, fused=True
        )
        self.ema = self.make_average()

    def _averaged(self) -> Mapping[str, Tensor]:
        averaged = super()._averaged()
        return merged(self.network, averaged) if self.config.lora_rank else averaged
