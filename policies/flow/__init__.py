"""Flow matching: `FAMILY` is its entry in the registry. Torch is imported only when one is loaded or trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.family import chunk_family
from policies.flow.config import FlowConfig

if TYPE_CHECKING:
    from policies.flow.objective import FlowObjective
    from policies.flow.policy import FlowPolicy


def _policy() -> type[FlowPolicy]:
    from policies.flow.policy import FlowPolicy

    return FlowPolicy


def _objective() -> type[FlowObjective]:
    from policies.flow.objective import FlowObjective

    return FlowObjective


FAMILY = chunk_family(
    "flow",
    "Rectified flow over action chunks, by Euler steps (Liu et al. 2023; Black et al. 2024)",
    FlowConfig,
    _policy,
    _objective,
    options=("inference_steps",),
)
