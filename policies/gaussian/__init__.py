"""Gaussian policy: `FAMILY` is its entry in the registry. Torch is imported only when one is loaded or trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.family import chunk_family
from policies.gaussian.config import GaussianConfig

if TYPE_CHECKING:
    from policies.gaussian.objective import GaussianObjective
    from policies.gaussian.policy import GaussianPolicy


def _policy() -> type[GaussianPolicy]:
    from policies.gaussian.policy import GaussianPolicy

    return GaussianPolicy


def _objective() -> type[GaussianObjective]:
    from policies.gaussian.objective import GaussianObjective

    return GaussianObjective


FAMILY = chunk_family(
    "gaussian", "A Gaussian over the action chunk: its mean, and samples around it", GaussianConfig, _policy, _objective
)
