"""Gaussian refinement: random neighbours of the policy's candidates, for policies that propose too few themselves.

A deterministic policy (a regression head, an action-chunking transformer at its mean) has one answer; a large one may be too
expensive to ask often. A cheap Gaussian around what it says gives the critic something to choose from (RoboMonkey, Kwok et al.
2025, arXiv 2506.17811, which fits the Gaussian to a few samples). No framework is needed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from steer.critic import Critic, CriticSpec
from steer.errors import ConfigError, UnsupportedError
from steer.noise import candidate_noise
from steer.options import integer, names, number, refuse_place, refuse_unknown
from steer.policy import Context

ORIGIN = "gaussian"
# The policy draws from the request's seed as it is; a stream of its own keeps the two independent.
_STREAM = np.int64(0x6A055)


class GaussianRefiner:
    """`steer.refiner.Refiner` for any critic.

    count: neighbours in all, dealt out over the policy's candidates in turn. scale: standard deviation, in units where every
    axis spans [-1, 1]. axes: those that move; unless given, all whose name does not say "gripper", because half-open is no
    neighbour of open. per: "chunk" moves all steps of a chunk by one draw, so that a smooth chunk stays smooth; "step" draws for
    each step.
    """

    def __init__(
        self,
        spec: CriticSpec,
        count: int = 8,
        scale: float = 0.1,
        axes: Sequence[str] = (),
        per: Literal["chunk", "step"] = "chunk",
    ) -> None:
        if count < 1 or not (math.isfinite(scale) and scale > 0):
            raise ConfigError(f"count {count}, scale {scale}: both must be positive")
        if per not in ("chunk", "step"):
            raise ConfigError(f"per is {per!r}, expected chunk or step")
        self._spec, self._count, self._per = spec, count, per
        half_range = (spec.action.high - spec.action.low) / 2
        self._std = (scale * half_range * _moving(spec.action.names, axes)).astype(np.float32)

    def refine(
        self,
        policy_context: Context,
        critic_context: Context,
        candidates: Float[np.ndarray, "b k h a"],
        seeds: Int[np.ndarray, " b"],
        executed: int,
        committed: int,
    ) -> tuple[Float[np.ndarray, "b k2 h a"], tuple[str, ...]]:
        """`count` neighbours, clipped to the bounds. Only steps that are scored and not committed move.

        Neighbour k depends on the seed and on k alone: fewer neighbours are a prefix of more.
        """
        scored = self._spec.scored_steps(executed)
        if committed >= scored:
            raise UnsupportedError(
                f"{committed} steps are committed, the critic scores {scored}: nothing is left to perturb"
            )
        added = candidates[:, np.arange(self._count) % candidates.shape[1]]
        steps = 1 if self._per == "chunk" else candidates.shape[2]
        noise = candidate_noise(seeds ^ _STREAM, self._count, (steps, candidates.shape[3]))
        moves = np.broadcast_to(noise * self._std, added.shape)
        moved = added[:, :, committed:scored] + moves[:, :, committed:scored]
        added[:, :, committed:scored] = self._spec.action.clip(moved)[0]
        return added, (ORIGIN,) * self._count


def _moving(known: Sequence[str], axes: Sequence[str]) -> Float[np.ndarray, " a"]:
    """1 for each axis that moves, 0 for the others."""
    unknown = sorted(set(axes) - set(known))
    if unknown:
        raise ConfigError(f"axes {unknown} are none of the action's: it has {list(known)}")
    chosen = axes or [name for name in known if "gripper" not in name]
    if not chosen:
        raise ConfigError(f"of the axes {list(known)} none would move: name those that shall")
    return np.array([name in chosen for name in known], np.float32)


def create(critic: Critic, place: str, options: Mapping[str, str]) -> GaussianRefiner:
    """`gaussian:?count=8&scale=0.1&axes=dx,dy&per=step`: for the registry, group `steer.refiners`."""
    refuse_place("refiner 'gaussian'", place)
    refuse_unknown("refiner 'gaussian'", options, ("count", "scale", "axes", "per"))
    per = options.get("per", "chunk")
    return GaussianRefiner(
        critic.spec,
        integer(options, "count", 8),
        number(options, "scale", 0.1),
        names(options, "axes"),
        per,  # type: ignore[arg-type]  # the constructor refuses other words
    )
