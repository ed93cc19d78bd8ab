"""Frozen dataclasses to JSON and back, strictly: an unknown field or a wrong type is an error that names the place.

Used for specs on disk and for configurations; nothing is imported or evaluated from what a file says.
"""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar

import cattrs
from cattrs.preconf.json import make_converter

from steer.errors import SpecError

T = TypeVar("T")

_converter = make_converter(
    forbid_extra_keys=True, detailed_validation=True, unstruct_collection_overrides={tuple: list}
)


@_converter.register_structure_hook
def _strict_float(value: Any, _: type) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"got {type(value).__name__}, expected a number")
    return float(value)


@_converter.register_structure_hook
def _strict_int(value: Any, _: type) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"got {type(value).__name__}, expected an integer")
    return value


@_converter.register_structure_hook
def _strict_bool(value: Any, _: type) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"got {type(value).__name__}, expected true or false")
    return value


@_converter.register_structure_hook
def _strict_str(value: Any, _: type) -> str:
    if not isinstance(value, str):
        raise TypeError(f"got {type(value).__name__}, expected text")
    return value


def to_json(value: Any) -> Any:
    """A dataclass (or a container of them) as plain JSON data."""
    return _converter.unstructure(value)


def from_json(cls: type[T], data: Any, what: str) -> T:
    """Build `cls` from JSON data; `what` names the source in the `SpecError`."""
    if is_dataclass(cls) and isinstance(data, dict):
        missing = [
            f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING and f.name not in data
        ]
        if missing:
            raise SpecError(f"{what}: {cls.__name__} lacks {missing}; it has {sorted(data)}")
    try:
        return _converter.structure(data, cls)
    except cattrs.BaseValidationError as error:
        problems = "; ".join(cattrs.transform_error(error, path=what))
        raise SpecError(f"{problems}: expected the fields of {getattr(cls, '__name__', cls)}") from error
    except (TypeError, ValueError) as error:
        raise SpecError(f"{what}: {error}: expected {getattr(cls, '__name__', cls)}") from error
