"""Every hyper-parameter of the Gaussian policy, one line each; flags of `steer train policy:gaussian`. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from policies.config import TrainingConfig
from steer.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class GaussianConfig(TrainingConfig):
    """A diagonal Gaussian over the chunk, learned by (weighted) maximum likelihood with a residual MLP."""

    hidden: int = 256
    """Width of the residual stream."""
    expansion: int = 512
    """Width inside a residual block."""
    blocks: int = 2
    """Residual blocks: layer norm, linear, GELU, linear."""
    std: Literal["state", "constant"] = "state"
    """Standard deviations that depend on the observation, or one learned number per entry of the chunk."""
    min_std: float = 0.01
    """Smallest standard deviation; actions lie in [-1, 1]."""
    beta: float = 0.5
    """Entries weigh std^(2 beta) (Seitzer et al. 2022, arXiv:2203.09168); 0 is the likelihood itself. [0.5]"""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("hidden", "expansion", "blocks")
        if self.min_std <= 0:
            raise ConfigError(f"min_std is {self.min_std}, expected more than 0")
        if not 0 <= self.beta <= 1:
            raise ConfigError(f"beta is {self.beta}, expected 0 to 1")
