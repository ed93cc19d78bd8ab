"""`ChunkPolicy`: what our own policies share when they serve: checks, transforms, keyed noise, committed steps, bounds.

A family says what it computes once per observation (`context`) and how noise becomes chunks in the model's units (`propose`); one
whose candidates do not come from Gaussian noise overrides `draw` instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from steer.errors import SpecError
from steer.noise import candidate_noise
from steer.observation import Batch
from steer.policy import PolicySpec
from steer.transforms import Pipeline


@dataclass(frozen=True)
class ChunkContext:
    """computed: what does not depend on the candidate, for `batch` = B observations, in the family's own form."""

    batch: int
    computed: Any


class ChunkPolicy:
    """A trained policy. Implements `steer.policy.Policy`; see there for the contract."""

    def __init__(
        self, spec: PolicySpec, transforms: Pipeline, network: nn.Module, version: str, device: str = "cpu"
    ) -> None:
        """network: with an `encoder` of observations."""
        self.spec = spec
        self.version = version
        self._transforms = transforms
        self._device = torch.device(device)
        self._network: Any = _for_inference(network.to(self._device))

    def context(self, features: Float[Tensor, "b *f"]) -> Any:
        """Everything that does not depend on the candidate, from the encoder's features."""
        raise NotImplementedError

    def propose(
        self, computed: Tensor, noise: Float[Tensor, "b k c"], committed: Float[Tensor, "b 1 d"] | None
    ) -> Float[Tensor, "b k c"]:
        """Chunks in the model's units from noise that the temperature has scaled. committed: their first entries, if known."""
        raise NotImplementedError

    def draw(
        self,
        computed: Any,
        num_samples: int,
        seeds: Int[np.ndarray, " b"],
        temperature: float,
        committed: Float[Tensor, "b 1 d"] | None,
    ) -> Float[Tensor, "b k c"]:
        """Chunks in the model's units: by default `propose` of noise keyed by (seed, k)."""
        shape = (self.spec.horizon, self.spec.action.size)
        noise = torch.from_numpy(candidate_noise(seeds, num_samples, shape)).to(self._device)
        return self.propose(computed, noise.flatten(2).mul_(temperature), committed)

    @torch.inference_mode()
    def encode(self, observations: Batch) -> ChunkContext:
        """Check the observations and compute what does not depend on the candidate."""
        self.spec.observation.validate_batch(observations)
        arrays = {key: observations.arrays[key] for key in self.spec.observation.keys}
        tensors = {
            key: torch.from_numpy(value).to(self._device) for key, value in self._transforms.observe(arrays).items()
        }
        mask = torch.from_numpy(observations.mask).to(self._device)
        return ChunkContext(len(mask), self.context(self._network.encoder(tensors, mask)))

    @torch.inference_mode()
    def sample(
        self,
        context: ChunkContext,
        num_samples: int,
        seeds: Int[np.ndarray, " b"],
        temperature: float = 1.0,
        committed: Float[np.ndarray, "b d a"] | None = None,
    ) -> Float[np.ndarray, "b k h a"]:
        """K chunks per observation; temperature scales the noise (or divides the logits), at 0 all candidates are the same."""
        held = 0 if committed is None else committed.shape[1]
        self.spec.check_request(num_samples, temperature, held)
        if len(seeds) != context.batch:
            raise SpecError(f"seeds: got {len(seeds)}, expected one for each of the {context.batch} observations")
        shape = (self.spec.horizon, self.spec.action.size)
        known = self._known(committed, context.batch) if committed is not None and held and self.spec.inpaints else None
        chunks = self.draw(context.computed, num_samples, np.asarray(seeds), temperature, known)
        actions = self._transforms.to_robot(chunks.cpu().numpy().reshape(context.batch, num_samples, *shape))
        if committed is not None and known is not None:
            actions[:, :, :held] = committed[:, None]
        # The model's [-1, 1] are the bounds; what is outside is rounding, or a Gaussian's tail.
        clipped, _ = self.spec.action.clip(actions)
        return clipped

    def _known(self, committed: Float[np.ndarray, "b d a"], batch: int) -> Float[Tensor, "b 1 d"]:
        self.spec.action.check_shape(committed, "committed")
        if committed.ndim != 3 or committed.shape[0] != batch:
            raise SpecError(
                f"committed: got shape {committed.shape}, expected (B={batch}, d, A={self.spec.action.size})"
            )
        return torch.from_numpy(self._transforms.to_model(committed)).to(self._device).flatten(1)[:, None]


def _for_inference(network: nn.Module) -> nn.Module:
    """Frozen, with the weights of linear layers laid out in the order in which a product of few rows reads them.

    At eight rows a product with transposed weights takes 1.6 times as long on a CPU; the values are the same.
    """
    for module in network.modules():
        if isinstance(module, nn.Linear):
            module.weight.data = module.weight.data.t().contiguous().t()
    return network.eval().requires_grad_(False)
