"""Diffusion policy: `FAMILY` is its entry in the registry. Torch is imported only when one is loaded or trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.diffusion.config import DiffusionConfig
from policies.family import chunk_family

if TYPE_CHECKING:
    from policies.diffusion.objective import DiffusionObjective
    from policies.diffusion.policy import DiffusionPolicy


def _policy() -> type[DiffusionPolicy]:
    from policies.diffusion.policy import DiffusionPolicy

    return DiffusionPolicy


def _objective() -> type[DiffusionObjective]:
    from policies.diffusion.objective import DiffusionObjective

    return DiffusionObjective


FAMILY = chunk_family(
    "diffusion",
    "DDIM over action chunks from states or images (Chi et al. 2023)",
    DiffusionConfig,
    _policy,
    _objective,
    options=("inference_steps",),
)
