"""`GaussianPolicy`: proposes the mean chunk first, then samples around it from noise keyed by (seed, k)."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from policies.checkpoints import load_weights, open_checkpoint
from policies.gaussian.config import GaussianConfig
from policies.gaussian.network import GaussianNetwork
from policies.sampling import ChunkPolicy

KIND = "gaussian"


class GaussianPolicy(ChunkPolicy):
    """A trained Gaussian policy.

    Candidate 0 is the mean, which is what such a policy does alone; temperature scales the standard deviation of the others. The
    entries are independent given the observation, so committed steps say nothing of the rest: it does not inpaint.
    """

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> GaussianPolicy:
        """Read a checkpoint folder."""
        checkpoint, config, spec = open_checkpoint(path, KIND, GaussianConfig)
        network = GaussianNetwork(config, spec, checkpoint.transforms)
        load_weights(network, checkpoint)
        return cls(spec, checkpoint.transforms, network, checkpoint.version, device)

    def context(self, features: Float[Tensor, "b f"]) -> Float[Tensor, "2 b 1 c"]:
        """Means and standard deviations."""
        return torch.stack(self._network.moments(features))[:, :, None]

    def propose(
        self,
        computed: Float[Tensor, "2 b 1 c"],
        noise: Float[Tensor, "b k c"],
        committed: Float[Tensor, "b 1 d"] | None,
    ) -> Float[Tensor, "b k c"]:
        noise[:, 0] = 0
        return torch.addcmul(computed[0], computed[1], noise)
