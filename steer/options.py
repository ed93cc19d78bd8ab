"""The options of a name (`panda:?seed=3&images=front`) are texts; these functions read them, and refuse what is not meant."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from steer.errors import ConfigError


def refuse_unknown(owner: str, options: Mapping[str, str], known: Collection[str]) -> None:
    """Raise `ConfigError` for an option that `owner` does not have."""
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ConfigError(f"{owner} has no options {unknown}; it has {sorted(known) or 'none'}")


def refuse_place(owner: str, place: str) -> None:
    """Raise `ConfigError` for a place given to what has none."""
    if place:
        raise ConfigError(f"{owner} is not read from anywhere, {place!r} was given: write its options behind ':?'")


def integer(options: Mapping[str, str], key: str, default: int) -> int:
    """A whole number."""
    text = options.get(key, str(default))
    try:
        return int(text)
    except ValueError as error:
        raise ConfigError(f"option {key}={text!r}: expected a whole number") from error


def number(options: Mapping[str, str], key: str, default: float) -> float:
    """A number."""
    text = options.get(key, str(default))
    try:
        return float(text)
    except ValueError as error:
        raise ConfigError(f"option {key}={text!r}: expected a number") from error


def names(options: Mapping[str, str], key: str) -> tuple[str, ...]:
    """Names with commas between them; none when the option is absent or empty."""
    return tuple(name for name in options.get(key, "").split(",") if name)


def json_or_text(text: str) -> Any:
    """JSON where it is JSON (numbers, true, lists), else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def pairs(texts: Sequence[str], flag: str) -> dict[str, str]:
    """KEY=VALUE texts as a mapping."""
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError(f"{flag} {text!r}: expected KEY=VALUE")
        if key in found:
            raise ConfigError(f"{flag} gives {key!r} twice: {found[key]!r} and {value!r}")
        found[key] = value
    return found
