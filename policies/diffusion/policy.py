"""`DiffusionPolicy`: proposes chunks by DDIM from noise keyed by (seed, k)."""

from __future__ import annotations

from policies.denoising import DenoisingPolicy
from policies.diffusion.config import DiffusionConfig
from policies.diffusion.network import DiffusionNetwork
from policies.diffusion.schedule import DdimLevel, ddim_levels

KIND = "diffusion"


class DiffusionPolicy(DenoisingPolicy):
    """A trained diffusion policy; the backbone says the noise in a chunk."""

    kind = KIND
    solver = "ddim"
    config_type = DiffusionConfig
    network_type = DiffusionNetwork

    @classmethod
    def levels(cls, config: DiffusionConfig, network: DiffusionNetwork) -> tuple[DdimLevel, ...]:
        return ddim_levels(network.alphas_cumprod.cpu(), config.inference_steps)
