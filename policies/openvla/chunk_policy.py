"""`TokenChunkPolicy`: a small token policy trained here; proposes chunks token by token behind one shared prefix."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from policies.checkpoints import load_weights, open_checkpoint
from policies.openvla.chunk_config import TokenChunkConfig
from policies.openvla.chunk_network import TokenChunkNetwork
from policies.openvla.decode import Prefix, decode, prefill
from policies.openvla.sampling import ActionChooser, candidate_quantiles
from policies.sampling import ChunkPolicy
from steer.policy import PolicySpec
from steer.transforms import Pipeline

KIND = "openvla"


class TokenChunkPolicy(ChunkPolicy):
    """A trained token policy. Its context is the observation's keys and values.

    Candidate 0 takes the likeliest token at every step, whatever the seed. Committed steps are continued: their tokens stand
    before the ones that are chosen.
    """

    def __init__(
        self,
        spec: PolicySpec,
        transforms: Pipeline,
        network: TokenChunkNetwork,
        version: str,
        device: str = "cpu",
        top_k: int = 0,
    ) -> None:
        super().__init__(spec, transforms, network, version, device)
        self._top_k = top_k
        self._bins = network.bins
        self._model = network.language_model.model

    @classmethod
    def load(cls, path: Path, device: str = "cpu", top_k: int = 0) -> TokenChunkPolicy:
        """Read a checkpoint folder."""
        checkpoint, config, spec = open_checkpoint(path, KIND, TokenChunkConfig)
        network = TokenChunkNetwork(config, spec, checkpoint.transforms)
        load_weights(network, checkpoint)
        # Other samples, hence another name: candidate caches are keyed by it.
        version = f"{checkpoint.version}-top{top_k}" if top_k else checkpoint.version
        return cls(spec, checkpoint.transforms, network, version, device, top_k)

    def context(self, features: Float[Tensor, "b p e"]) -> Prefix:
        """The observation's tokens, run once for all candidates."""
        return prefill(self._model, features)

    def draw(
        self,
        computed: Prefix,
        num_samples: int,
        seeds: Int[np.ndarray, " b"],
        temperature: float,
        committed: Float[Tensor, "b 1 d"] | None,
    ) -> Float[Tensor, "b k c"]:
        """Token by token, behind the committed ones where there are any; the chooser divides the logits by the temperature."""
        numbers = self.spec.horizon * self.spec.action.size
        held = 0 if committed is None else committed.shape[-1]
        prefix = computed if committed is None else self._continued(computed, committed[:, 0])
        tokens = numbers - held
        quantiles = candidate_quantiles(seeds, num_samples, numbers)[..., held:].to(self._device)
        head = self._network.language_model.lm_head.weight
        chooser = ActionChooser(head, 0, self._bins.bins, quantiles, temperature, self._top_k)
        ids = decode(self._model, prefix, num_samples, tokens, chooser).cpu().numpy()
        chosen = torch.from_numpy(self._bins.decode(ids).astype(np.float32))
        # What stands in for the committed numbers is overwritten by the caller.
        return torch.cat([chosen.new_zeros(*chosen.shape[:2], held), chosen], dim=-1)

    def _continued(self, prefix: Prefix, committed: Float[Tensor, "b d"]) -> Prefix:
        """The prefix with the tokens of the committed numbers behind it."""
        ids = torch.from_numpy(self._bins.encode(committed.cpu().numpy())).to(self._device)
        return prefill(self._model, self._model.embed_tokens(ids), prefix)
