"""The options of a robot's name (`panda:?seed=3`) are texts; these functions read them, and refuse what is not meant."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from steer.errors import ConfigError


def refuse_unknown(robot: str, options: Mapping[str, str], known: Collection[str]) -> None:
    """Raise `ConfigError` for an option that the robot does not have."""
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ConfigError(f"robot {robot!r} has no options {unknown}; it has {sorted(known)}")


def integer(options: Mapping[str, str], key: str, default: int) -> int:
    """A whole number."""
    text = options.get(key, str(default))
    try:
        return int(text)
    except ValueError as error:
        raise ConfigError(f"option {key}={text!r}: expected a whole number") from error


def names(options: Mapping[str, str], key: str) -> tuple[str, ...]:
    """Names with commas between them; none when the option is absent or empty."""
    return tuple(name for name in options.get(key, "").split(",") if name)
