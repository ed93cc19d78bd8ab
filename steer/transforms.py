"""Named, pure, ordered steps between robot and model, saved in the checkpoint and undone in reverse.

A transform is a frozen dataclass. `observe` maps observation arrays (any leading axes), `to_model` maps actions into the
model's units and `to_robot` back. Normalisation (`steer.normalize`) is the last of a pipeline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from jaxtyping import Float

from steer.errors import ConfigError
from steer.observation import ObservationSpec
from steer.serial import from_json, to_json
from steer.spec import Array


class Transform(Protocol):
    """One step; parameters are its fields."""

    name: ClassVar[str]

    def observe(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]: ...

    def to_model(self, actions: Float[np.ndarray, "*lead a"]) -> Float[np.ndarray, "*lead a"]: ...

    def to_robot(self, actions: Float[np.ndarray, "*lead a"]) -> Float[np.ndarray, "*lead a"]: ...


class OnObservations:
    """Base of transforms that leave actions alone."""

    def to_model(self, actions: Float[np.ndarray, "*lead a"]) -> Float[np.ndarray, "*lead a"]:
        return actions

    def to_robot(self, actions: Float[np.ndarray, "*lead a"]) -> Float[np.ndarray, "*lead a"]:
        return actions


class OnActions:
    """Base of transforms that leave observations alone."""

    def observe(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        return arrays


# Transforms by name: what a checkpoint may ask for. A name that is not here is refused, never imported.
TRANSFORMS: dict[str, type[Any]] = {}


def register(cls: type[Any]) -> type[Any]:
    """Class decorator: make a transform loadable by its name."""
    TRANSFORMS[cls.name] = cls
    return cls


@dataclass(frozen=True)
class Pipeline:
    """Transforms in the order in which an observation passes them."""

    transforms: tuple[Any, ...] = ()

    def observe(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        for transform in self.transforms:
            arrays = transform.observe(arrays)
        return arrays

    def to_model(self, actions: Float[np.ndarray, "*lead a"]) -> Float[np.ndarray, "*lead a"]:
        for transform in self.transforms:
            actions = transform.to_model(actions)
        return actions

    def to_robot(self, actions: Float[np.ndarray, "*lead a"]) -> Float[np.ndarray, "*lead a"]:
        for transform in reversed(self.transforms):
            actions = transform.to_robot(actions)
        return actions

    def to_json(self) -> list[Any]:
        return [{"name": t.name, **to_json(t)} for t in self.transforms]

    @classmethod
    def from_json(cls, data: Any) -> Pipeline:
        """Build a pipeline from a checkpoint's list; an unknown name is a `ConfigError`."""
        if not isinstance(data, list) or not all(isinstance(entry, dict) for entry in data):
            raise ConfigError("transforms: expected a list of objects with a 'name'")
        return cls(tuple(_one(dict(entry)) for entry in data))


def _one(entry: dict[str, Any]) -> Any:
    # Transforms of steer.normalize register themselves on import; a checkpoint may name them before anyone imported it.
    import steer.normalize  # noqa: F401

    name = entry.pop("name", None)
    if name not in TRANSFORMS:
        raise ConfigError(f"unknown transform {name!r}: this version knows {sorted(TRANSFORMS)}")
    return from_json(TRANSFORMS[name], entry, f"transform {name}")


@register
@dataclass(frozen=True)
class RenameKeys(OnObservations):
    """Give observation keys the names the model was trained with: pairs of (given, wanted); others pass."""

    name: ClassVar[str] = "rename_keys"
    pairs: tuple[tuple[str, str], ...]

    def observe(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        wanted = dict(self.pairs)
        return {wanted.get(key, key): value for key, value in arrays.items()}


@register
@dataclass(frozen=True)
class NearField(OnObservations):
    """Append tanh(x / scale_m) of some entries of a vector: resolution where two things are close.

    A network fed standardised displacements over tens of centimetres barely sees the last two; these entries saturate far
    away and resolve the neighbourhood.
    """

    name: ClassVar[str] = "near_field"
    key: str
    entries: tuple[int, ...]
    """Positions of displacements (metres) in the vector."""
    scale_m: float = 0.04

    @classmethod
    def of(cls, spec: ObservationSpec, key: str, scale_m: float = 0.04) -> NearField:
        """Over every entry named as a displacement, "a_from_b.x"."""
        names = spec[key].names
        return cls(key, tuple(i for i, name in enumerate(names) if "_from_" in name), scale_m)

    def observe(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        vector = arrays[self.key]
        near = np.tanh(vector[..., list(self.entries)] / np.float32(self.scale_m))
        return {**arrays, self.key: np.concatenate([vector, near], axis=-1, dtype=np.float32)}
