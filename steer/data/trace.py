"""The trace of an episode: which decision every step came from, as small arrays beside its actions.

    proposed       float32[N, A]  candidate 0: what the policy alone would have done
    scored         float32[N, A]  the chosen candidate, as the critic was shown it; safety may have sent something else
    value          float32[N]     the critic's value of the chosen chunk, NaN where none scored
    decision       int32[N]       number of the decision within the episode
    decision_seed  int64[N]       its seed: with the observation it gives the candidates again
    chosen         int32[N]       index of the chosen candidate
    origin         int32[N]       who made it, an index into info["origins"]
    chunk_start    bool[N]        first step of its chunk
    held           bool[N]        nobody decided: the robot was told to stand still
    intervention   bool[N]        a person or an expert decided

Steps without a decision hold NaN, or -1, or (the seed) 0. Robots and simulated rollouts record the same; an array that an older
store lacks was not recorded then, and no `intervention` means that there was none.

In the episode's info: "policy_version" and "critic_version" of the last decision, "origins", and, only where versions changed in
mid-episode, "versions": one {"step", "policy_version", "critic_version"} per stretch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from steer.decision import Decision
from steer.spec import Array


@dataclass(frozen=True)
class Choice:
    """Where one step comes from. The words are those of the module; `origin` is the name itself, `first` begins a chunk."""

    proposed: Float[np.ndarray, " a"]
    scored: Float[np.ndarray, " a"]
    value: float
    decision: int
    seed: int
    chosen: int
    origin: str
    first: bool
    policy_version: str
    critic_version: str

    @classmethod
    def of(cls, decision: Decision, offset: int, number: int) -> Choice:
        """Step `offset` of what decision `number` of the episode executes; copies, so that no candidates are kept in memory."""
        return cls(
            proposed=decision.candidates[0, decision.committed + offset].copy(),
            scored=decision.actions[offset].copy(),
            value=float(decision.values[decision.chosen]) if decision.scores.size else float("nan"),
            decision=number,
            seed=decision.seed,
            chosen=decision.chosen,
            origin=decision.origins[decision.chosen],
            first=offset == 0,
            policy_version=decision.policy_version,
            critic_version=decision.critic_version,
        )


def trace_arrays(
    choices: Sequence[Choice | None], interventions: Sequence[bool], axes: int
) -> tuple[dict[str, Array], dict[str, Any]]:
    """`Episode.steps` and what belongs into its info; see the module. axes: A."""
    nothing = np.full(axes, np.nan, np.float32)
    intervention = np.array(interventions, np.bool_)
    origins = tuple(dict.fromkeys(choice.origin for choice in choices if choice is not None))
    steps: dict[str, Array] = {
        "proposed": np.stack([nothing if c is None else c.proposed for c in choices]).astype(np.float32),
        "scored": np.stack([nothing if c is None else c.scored for c in choices]).astype(np.float32),
        "value": np.array([np.nan if c is None else c.value for c in choices], np.float32),
        "decision": np.array([-1 if c is None else c.decision for c in choices], np.int32),
        "decision_seed": np.array([0 if c is None else c.seed for c in choices], np.int64),
        "chosen": np.array([-1 if c is None else c.chosen for c in choices], np.int32),
        "origin": np.array([-1 if c is None else origins.index(c.origin) for c in choices], np.int32),
        "chunk_start": np.array([c is not None and c.first for c in choices], np.bool_),
        "held": np.array([c is None for c in choices], np.bool_) & ~intervention,
        "intervention": intervention,
    }
    return steps, {"origins": list(origins), "intervention_steps": int(intervention.sum()), **_versions(choices)}


def _versions(choices: Sequence[Choice | None]) -> dict[str, Any]:
    """Nothing for an episode without a single decision."""
    stretches: list[dict[str, Any]] = []
    for step, choice in enumerate(choices):
        if choice is None:
            continue
        versions = {"policy_version": choice.policy_version, "critic_version": choice.critic_version}
        if not stretches or stretches[-1] != {**versions, "step": stretches[-1]["step"]}:
            stretches.append({"step": step, **versions})
    if not stretches:
        return {}
    last = {name: stretches[-1][name] for name in ("policy_version", "critic_version")}
    return {**last, "versions": stretches} if len(stretches) > 1 else last
