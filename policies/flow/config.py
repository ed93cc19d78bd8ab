"""Every hyper-parameter of the flow policy, one line each; also the flags of `steer train policy:flow`. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from policies.backbones.config import DenoiserConfig


@dataclass(frozen=True, kw_only=True)
class FlowConfig(DenoiserConfig):
    """Flow matching on straight paths from noise to chunks (Lipman et al. 2023; Liu et al. 2023, arXiv:2209.03003).

    In brackets: the value of pi0 (Black et al. 2024, arXiv:2410.24164) where it differs.
    """

    inference_steps: int = 8
    """Euler steps from noise to chunk. [10]"""
    time_sampling: Literal["uniform", "beta"] = "uniform"
    """Times in training: uniform, or pi0's shifted Beta(1.5, 1), which prefers the noisy end (its appendix B). [beta]"""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("inference_steps")
