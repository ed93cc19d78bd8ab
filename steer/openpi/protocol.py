"""What is said over the openpi wire beyond observations and actions, and what Steer says of itself on it.

A stock server's metadata may say anything or nothing. Ours names what it wants and gives, and under "steer" states the whole
spec of its policy; to a server that does so, another Steer may send what stock ones do not know:

    num_samples   K: answer with the policy's candidates, "candidates" float32[K, H, A], besides "actions"
    temperature   of the policy
    mask          bool[T]: the arrays of the request carry the whole window, [T, ...]

and anybody may send `prompt` (the instruction), `seed`, and `reset` (true: a new episode begins with this frame).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from steer.engine import Engine
from steer.errors import SpecError
from steer.openpi.keys import KeyMap
from steer.policy import PolicySpec
from steer.serial import from_json, to_json

RESERVED = ("prompt", "seed", "reset", "num_samples", "temperature", "mask")
"""Names in a request that are no observations."""
VERSION = 1
_STEER = "steer"


@dataclass(frozen=True)
class Far:
    """What a server's metadata says. `policy` and `version` only where it is a Steer."""

    metadata: Mapping[str, Any]
    horizon: int | None = None
    policy: PolicySpec | None = None
    version: str = ""

    @property
    def is_steer(self) -> bool:
        return self.policy is not None


def announce(engine: Engine, keys: KeyMap, executed: int) -> dict[str, Any]:
    """The metadata of an engine that has a policy, under the client's names of the keys."""
    policy, critic = engine.policy, engine.critic
    assert policy is not None
    observation = keys.renamed(engine.observation)
    spec = replace(policy.spec, observation=observation)
    return {
        "name": policy.version,
        "action_horizon": engine.horizon,
        "action_names": list(engine.action.names),
        "execute": executed,
        "observation": {array.name: {"dtype": array.dtype, "shape": list(array.shape)} for array in observation.arrays},
        _STEER: {
            "protocol": VERSION,
            "policy": policy.version,
            "critic": "" if critic is None else critic.version,
            "spec": to_json(spec),
        },
    }


def understand(metadata: Mapping[str, Any], where: str) -> Far:
    """Read a server's metadata; raises `SpecError` for one of ours that is malformed or of another version."""
    stated = metadata.get("action_horizon")
    horizon = stated if isinstance(stated, int) and stated > 0 else None
    about = metadata.get(_STEER)
    if about is None:
        return Far(metadata, horizon)
    if not isinstance(about, dict) or about.get("protocol") != VERSION or not isinstance(about.get("policy"), str):
        raise SpecError(f"{where}: a Steer of another version (metadata {about!r:.80}): run the same one on both sides")
    spec = from_json(PolicySpec, about.get("spec"), f"{where}: metadata")
    return Far(metadata, spec.horizon, spec, about["policy"])


def cause(text: str) -> str:
    """The line of an error text that says what happened: the last one of a traceback."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason was given"
