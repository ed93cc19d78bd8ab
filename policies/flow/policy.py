"""`FlowPolicy`: proposes chunks by Euler steps from noise keyed by (seed, k)."""

from __future__ import annotations

from policies.denoising import DenoisingPolicy
from policies.flow.config import FlowConfig
from policies.flow.network import FlowNetwork
from policies.flow.path import EulerLevel, euler_levels

KIND = "flow"


class FlowPolicy(DenoisingPolicy):
    """A trained flow policy."""

    kind = KIND
    solver = "euler"
    config_type = FlowConfig
    network_type = FlowNetwork

    @classmethod
    def levels(cls, config: FlowConfig, network: FlowNetwork) -> tuple[EulerLevel, ...]:
        return euler_levels(config.inference_steps)
