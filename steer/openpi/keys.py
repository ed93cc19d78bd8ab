"""The two names of an observation: ours in a spec, theirs in an openpi message. `:` steps into a map: `images:cam_high`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from steer.errors import ConfigError, SpecError
from steer.observation import ObservationSpec

STEP = ":"


@dataclass(frozen=True)
class KeyMap:
    """ours -> theirs; a name that is not in it is the same on both sides."""

    theirs: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_pairs(cls, pairs: Iterable[tuple[str, str]]) -> KeyMap:
        """From (ours, theirs); raises `ConfigError` when either stands twice."""
        listed = list(pairs)
        for side, names in (("ours", [p[0] for p in listed]), ("theirs", [p[1] for p in listed])):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ConfigError(f"observation map: {twice} of {side} stand twice: map each key once")
        return cls(dict(listed))

    def their(self, name: str) -> str:
        return self.theirs.get(name, name)

    def check(self, spec: ObservationSpec) -> None:
        """Raise `ConfigError` for a mapped key of ours that there is none of."""
        unknown = sorted(set(self.theirs) - set(spec.keys))
        if unknown:
            raise ConfigError(f"observation map: there are no observations {unknown}; there are {list(spec.keys)}")

    def renamed(self, spec: ObservationSpec) -> ObservationSpec:
        """The spec under their names."""
        return replace(spec, arrays=tuple(replace(array, name=self.their(array.name)) for array in spec.arrays))


def pair(text: str) -> tuple[str, str]:
    """`A=B` as (A, B)."""
    left, separator, right = text.partition("=")
    if not separator or not left or not right:
        raise ConfigError(f"observation map: got {text!r}, expected NAME=NAME")
    return left, right


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """`{"a:b": 1}` as `{"a": {"b": 1}}`."""
    message: dict[str, Any] = {}
    for path, value in flat.items():
        *steps, last = path.split(STEP)
        place = message
        for step in steps:
            place = place.setdefault(step, {})
        place[last] = value
    return message


def pick(message: Mapping[str, Any], paths: Iterable[str]) -> dict[str, Any]:
    """The values at these paths, by path; raises one `SpecError` that lists every missing one."""
    found, missing = {}, []
    for path in paths:
        place: Any = message
        for step in path.split(STEP):
            place = place.get(step) if isinstance(place, dict) else None
        if place is None:
            missing.append(path)
        else:
            found[path] = place
    if missing:
        raise SpecError(f"the observation lacks {missing}; it has {sorted(message)}: the metadata names what is wanted")
    return found
