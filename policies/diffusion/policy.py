"""`DiffusionPolicy`: proposes chunks by DDIM from noise keyed by (seed, k)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from policies.diffusion.config import DiffusionConfig
from policies.diffusion.network import DiffusionNetwork
from policies.diffusion.schedule import ddim_levels
from steer.checkpoints import read_checkpoint, require_kind, require_weights
from steer.errors import SpecError
from steer.noise import candidate_noise
from steer.observation import Batch
from steer.policy import PolicySpec
from steer.serial import from_json
from steer.transforms import Pipeline

KIND = "diffusion"


@dataclass(frozen=True)
class DiffusionContext:
    """embeddings: [S, B, 1, W], the first layer's part of observation and time for every denoising step."""

    embeddings: Float[Tensor, "s b 1 w"]


class DiffusionPolicy:
    """A trained diffusion policy. Implements `steer.policy.Policy`; see there for the contract.

    Committed steps are inpainted: at every denoising step they are replaced by themselves at that noise level
    (Lugmayr et al. 2022, equation 8, without resampling), so that the rest of the chunk continues them.
    """

    def __init__(
        self,
        config: DiffusionConfig,
        spec: PolicySpec,
        transforms: Pipeline,
        network: DiffusionNetwork,
        version: str,
        device: str = "cpu",
    ) -> None:
        self.spec = spec
        self.version = version
        self._transforms = transforms
        self._device = torch.device(device)
        self._network = _for_inference(network.to(self._device))
        self._levels = ddim_levels(network.alphas_cumprod.cpu(), config.inference_steps)
        with torch.inference_mode():
            timesteps = torch.tensor([level.timestep for level in self._levels], device=self._device)
            self._time_embeddings = self._network.denoiser.embed_time(timesteps)[:, None, None]

    @classmethod
    def load(cls, path: Path, device: str = "cpu", inference_steps: int | None = None) -> DiffusionPolicy:
        """Read a checkpoint folder. inference_steps: instead of the trained configuration's."""
        checkpoint = read_checkpoint(path)
        require_kind(checkpoint, KIND)
        config = from_json(DiffusionConfig, checkpoint.config, f"{path}: config")
        version = checkpoint.version
        if inference_steps is not None and inference_steps != config.inference_steps:
            config = replace(config, inference_steps=inference_steps)
            # Other samples, hence another name: candidate caches are keyed by it.
            version = f"{version}-ddim{inference_steps}"
        spec = from_json(PolicySpec, checkpoint.spec, f"{path}: spec")
        network = DiffusionNetwork(config, spec, checkpoint.transforms)
        require_weights(checkpoint, {name: tuple(value.shape) for name, value in network.state_dict().items()})
        network.load_state_dict({name: torch.from_numpy(value) for name, value in checkpoint.weights.items()})
        return cls(config, spec, checkpoint.transforms, network, version, device)

    @torch.inference_mode()
    def encode(self, observations: Batch) -> DiffusionContext:
        """Check the observations and compute their part of the first layer, once for all candidates and steps."""
        self.spec.observation.validate_batch(observations)
        arrays = {key: observations.arrays[key] for key in self.spec.observation.keys}
        tensors = {
            key: torch.from_numpy(value).to(self._device) for key, value in self._transforms.observe(arrays).items()
        }
        mask = torch.from_numpy(observations.mask).to(self._device)
        rows = self._network.denoiser.embed_condition(self._network.encoder(tensors, mask))
        return DiffusionContext(self._time_embeddings + rows[None, :, None])

    @torch.inference_mode()
    def sample(
        self,
        context: DiffusionContext,
        num_samples: int,
        seeds: Int[np.ndarray, " b"],
        temperature: float = 1.0,
        committed: Float[np.ndarray, "b d a"] | None = None,
    ) -> Float[np.ndarray, "b k h a"]:
        """K chunks per observation; temperature scales the initial noise, at 0 all candidates are the same."""
        held = 0 if committed is None else committed.shape[1]
        self.spec.check_request(num_samples, temperature, held)
        batch = context.embeddings.shape[1]
        if len(seeds) != batch:
            raise SpecError(f"seeds: got {len(seeds)}, expected one for each of the {batch} observations")
        shape = (self.spec.horizon, self.spec.action.size)
        noise = (
            torch.from_numpy(candidate_noise(seeds, num_samples, shape)).to(self._device).flatten(2).mul_(temperature)
        )
        known = None if committed is None or not held else self._known(committed, batch)
        chunks = self._denoise(context, noise, known).cpu().numpy().reshape(batch, num_samples, *shape)
        actions = self._transforms.to_robot(chunks)
        if committed is not None:
            actions[:, :, :held] = committed[:, None]
        # The model's [-1, 1] are the bounds; only rounding can be outside.
        clipped, _ = self.spec.action.clip(actions)
        return clipped

    def _denoise(
        self, context: DiffusionContext, noise: Float[Tensor, "b k c"], known: Float[Tensor, "b 1 d"] | None
    ) -> Float[Tensor, "b k c"]:
        """DDIM from the noisiest level to the clean chunk."""
        x = noise
        for level, embedding in zip(self._levels, context.embeddings, strict=True):
            if known is not None:
                x = torch.cat([level.at(known, noise[..., : known.shape[-1]]), x[..., known.shape[-1] :]], dim=-1)
            x = level.step(x, self._network.denoiser(x, embedding))
        return x

    def _known(self, committed: Float[np.ndarray, "b d a"], batch: int) -> Float[Tensor, "b 1 d"]:
        self.spec.action.check_shape(committed, "committed")
        if committed.ndim != 3 or committed.shape[0] != batch:
            raise SpecError(
                f"committed: got shape {committed.shape}, expected (B={batch}, d, A={self.spec.action.size})"
            )
        return torch.from_numpy(self._transforms.to_model(committed)).to(self._device).flatten(1)[:, None]


def _for_inference(network: DiffusionNetwork) -> DiffusionNetwork:
    """Frozen, with the weights of linear layers laid out in the order in which a product of few rows reads them.

    At eight rows a product with transposed weights takes 1.6 times as long on a CPU; the values are the same.
    """
    for module in network.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.data = module.weight.data.t().contiguous().t()
    return network.eval().requires_grad_(False)
