"""One hierarchy of errors. Each message says what came, what was expected and what to do.

Every class names the gRPC status that carries it over the wire (`status`, a `grpc.StatusCode` name), so the
mapping lives here and not in the server. This module imports nothing, so every other one may use it.
"""

from __future__ import annotations


class SteerError(Exception):
    """Base of everything Steer raises on purpose; a caller may catch this one alone."""

    status = "INTERNAL"


class SpecError(SteerError):
    """A value or a spec does not fit: wrong shape, dtype, bounds, unit, rate, or not finite."""

    status = "INVALID_ARGUMENT"


class ConfigError(SteerError):
    """A setting, a flag or a model name cannot be used as given."""

    status = "INVALID_ARGUMENT"


class UnsupportedError(SteerError):
    """The model cannot do what was asked (a temperature, a seed, a prefix length); its spec says so."""

    status = "FAILED_PRECONDITION"


class CheckpointError(SteerError):
    """A checkpoint folder is missing, truncated, changed since it was written, or of an unknown kind."""

    status = "FAILED_PRECONDITION"


class StoreError(SteerError):
    """An episode store cannot be read or written; what was committed before is intact."""

    status = "FAILED_PRECONDITION"


class MissingExtraError(SteerError):
    """An optional dependency is not installed; the message names the extra that brings it."""

    status = "FAILED_PRECONDITION"

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs '{package}', which is not installed: pip install 'steer-robotics[{extra}]'")


class SessionError(SteerError):
    """The session, episode or step of a request is unknown, ended or out of order."""

    status = "NOT_FOUND"


class DeadlineError(SteerError):
    """An answer could not be had in time."""

    status = "DEADLINE_EXCEEDED"


class UnavailableError(SteerError):
    """The other process is not there: not started, gone, or its port is taken."""

    status = "UNAVAILABLE"


class RobotError(SteerError):
    """The robot did not do what it was told, or cannot be reached."""

    status = "FAILED_PRECONDITION"


def revive(name: str, message: str) -> SteerError | None:
    """The error of another process, by the name of its class; None where that is none of ours."""
    known: list[type[SteerError]] = [SteerError]
    known += SteerError.__subclasses__()
    for cls in known:
        if cls.__name__ == name:
            error = cls.__new__(cls)
            # Not cls(message): a class may build its message from other arguments.
            error.args = (message,)
            return error
    return None
