"""What a LeRobot checkpoint says of its inputs and outputs, as Steer's specs. numpy and JSON only; imported on both sides.

`config.json` states shapes and nothing else. Names, units, frames and the control rate come from a sidecar, `steer.json` beside
it (`Sidecar`); without one they are "unknown", the bounds are those of the data that the policy was trained on, and the keys are

    observation.state          ->  state
    observation.images.front   ->  camera.front
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from steer.action import UNKNOWN, ActionAxis, ActionSpec
from steer.errors import CheckpointError, SpecError
from steer.observation import ObservationSpec
from steer.serial import from_json
from steer.spec import Array, ArraySpec

SIDECAR = "steer.json"
VISUAL = "VISUAL"
ACTION = "action"
DEFAULT_RATE_HZ = 30.0
"""Rate of LeRobot's recordings unless told otherwise; a checkpoint does not state its own."""
_DEVIATIONS = 5.0


@dataclass(frozen=True)
class Source:
    """Where an input feature comes from: a key of the observation and, for a part of a vector, the names of its entries."""

    key: str
    entries: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sidecar:
    """What a person states of a checkpoint.

    action, observation: as in a robot's sidecar. features: sources of those inputs that are not called as above.
    """

    action: ActionSpec
    observation: tuple[ArraySpec, ...]
    features: dict[str, Source] = field(default_factory=dict)


@dataclass(frozen=True)
class Feature:
    """One entry of `input_features`: its name before the pre-processor, its type, its shape ((C, H, W) for images)."""

    name: str
    kind: str
    shape: tuple[int, ...]

    @property
    def default_key(self) -> str:
        name = self.name.removeprefix("observation.")
        return f"camera.{name.removeprefix('images.')}" if self.kind == VISUAL else name

    @property
    def array(self) -> ArraySpec:
        """The array that it is made from, when nothing else is said."""
        if self.kind != VISUAL:
            return ArraySpec(self.default_key, "float32", self.shape)
        channels, height, width = self.shape
        return ArraySpec(self.default_key, "uint8", (height, width, channels))


def read_json(path: Path) -> Any:
    """A JSON file of a checkpoint; raises `CheckpointError` that names it."""
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror}): give the folder of a LeRobot checkpoint, `pretrained_model`"
        ) from error
    except ValueError as error:
        raise CheckpointError(f"{path}: not readable as JSON ({error}): the checkpoint is damaged") from error


def read_sidecar(folder: Path) -> Sidecar | None:
    """The sidecar of a checkpoint, or None where it has none."""
    path = folder / SIDECAR
    return from_json(Sidecar, read_json(path), str(path)) if path.exists() else None


def input_features(config: Mapping[str, Any], rename: Mapping[str, str], where: Path) -> tuple[Feature, ...]:
    """Inputs in the order of `config.json`, by the names that go into the pre-processor. rename: its map, raw -> policy's."""
    raw = {ours: theirs for theirs, ours in rename.items()}
    try:
        return tuple(
            Feature(raw.get(name, name), str(entry["type"]), tuple(int(n) for n in entry["shape"]))
            for name, entry in config["input_features"].items()
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{where}: input_features are not as LeRobot writes them ({error!r})") from error


def observation_spec(
    features: tuple[Feature, ...], window: int, sidecar: Sidecar | None
) -> tuple[ObservationSpec, dict[str, Source]]:
    """The keys that the policy is shown, and the source of each feature among them."""
    if sidecar is None:
        return ObservationSpec(tuple(f.array for f in features), window), {
            f.name: Source(f.default_key) for f in features
        }
    unknown = sorted(set(sidecar.features) - {f.name for f in features})
    if unknown:
        raise SpecError(f"{SIDECAR}: no input features {unknown}; there are {[f.name for f in features]}")
    spec = ObservationSpec(sidecar.observation, window)
    sources = {f.name: sidecar.features.get(f.name, Source(f.default_key)) for f in features}
    for feature in features:
        _check_source(feature, sources[feature.name], spec)
    used = {source.key for source in sources.values()}
    return ObservationSpec(tuple(a for a in spec.arrays if a.name in used), window), sources


def _check_source(feature: Feature, source: Source, spec: ObservationSpec) -> None:
    array = spec[source.key]
    for name in source.entries:
        array.index(name)
    got = (len(source.entries),) if source.entries else array.shape
    if got != feature.array.shape or array.dtype != feature.array.dtype:
        raise SpecError(
            f"{SIDECAR}: {feature.name} is {feature.array.dtype} {feature.array.shape}, but {source.key!r} gives "
            f"{array.dtype} {got}: name as many entries as the feature has"
        )


def take(source: Source, spec: ObservationSpec, arrays: Mapping[str, Array]) -> Array:
    """The feature's values, [..., n] or [..., height, width, 3], out of an observation's arrays."""
    value = arrays[source.key]
    if not source.entries:
        return value
    return value[..., [spec[source.key].index(name) for name in source.entries]]


def action_spec(size: int, statistics: Mapping[str, Array], sidecar: Sidecar | None, rate_hz: float) -> ActionSpec:
    """The sidecar's, or one whose bounds are those of the data. statistics: "action.min" and so on -> [A]."""
    if sidecar is not None:
        if sidecar.action.size != size:
            raise SpecError(f"{SIDECAR}: {sidecar.action.size} action axes, but the checkpoint has {size}")
        return sidecar.action
    low, high = _bounds(size, statistics)
    axes = tuple(
        # An axis that never moved still needs an interval.
        ActionAxis(f"a{i}", UNKNOWN, float(a), float(b) if b > a else float(a) + 1.0)
        for i, (a, b) in enumerate(zip(low, high, strict=True))
    )
    return ActionSpec(axes, "unknown", UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, rate_hz)


def _bounds(size: int, statistics: Mapping[str, Array]) -> tuple[Array, Array]:
    """Least and greatest action of the data; where only its moments are known, five deviations about the mean."""
    have = {name.removeprefix(f"{ACTION}."): value for name, value in statistics.items() if value.shape == (size,)}
    if {"min", "max"} <= set(have):
        return have["min"], have["max"]
    if {"mean", "std"} <= set(have):
        spread = np.abs(have["std"]) * _DEVIATIONS
        return have["mean"] - spread, have["mean"] + spread
    raise CheckpointError(
        f"the post-processor holds no statistics of the action (it has {sorted(statistics)}), so its bounds are unknown: "
        f"state them in {SIDECAR}"
    )
