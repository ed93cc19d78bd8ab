"""What the names `openpi://host:port?...` and `grpc://host:port?...` may say."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from steer.errors import ConfigError
from steer.model_name import ModelName
from steer.openpi.keys import KeyMap, pair
from steer.options import integer, names, number

DEFAULT_KEY_VARIABLE = "OPENPI_API_KEY"


@dataclass(frozen=True)
class OpenpiOptions:
    """An openpi server, and what it does not say of itself.

    robot: a robot sidecar whose observations and actions the policy was trained for; not for a Steer, which says it itself.
    horizon: H; not for a server whose metadata states `action_horizon`.
    keys: `map=OURS=THEIRS,...`. Without a map, all observations of the sidecar are sent under their own names, with one only
        those in it; `:` in a name of theirs steps into a map (`images:cam_high`).
    channels_first: images travel as (3, height, width). stochastic: false for a policy that answers the same each time.
    timeout_s: longest wait for an answer; the first one of a stock server may compile for most of a minute.
    connections: most calls at the same time.
    api_key: from the environment, and neither shown nor logged.
    """

    KNOWN: ClassVar = (
        "robot",
        "horizon",
        "map",
        "channels_first",
        "stochastic",
        "timeout_s",
        "connections",
        "api_key_env",
        "tls",
    )

    host: str
    port: int
    robot: Path | None = None
    horizon: int | None = None
    keys: KeyMap = field(default_factory=KeyMap)
    channels_first: bool = False
    stochastic: bool = True
    timeout_s: float = 60.0
    connections: int = 8
    tls: bool = False
    api_key: str = field(default="", repr=False)

    @classmethod
    def of(cls, name: ModelName) -> OpenpiOptions:
        """Read and check; raises `ConfigError`."""
        name.refuse_unknown(*cls.KNOWN)
        options = name.options
        host, port = host_and_port(name, 8000)
        return cls(
            host=host,
            port=port,
            robot=Path(options["robot"]) if "robot" in options else None,
            horizon=_positive(options, "horizon", 1) if "horizon" in options else None,
            keys=KeyMap.of_pairs(map(pair, names(options, "map"))),
            channels_first=_truth(options, "channels_first", False),
            stochastic=_truth(options, "stochastic", True),
            timeout_s=_seconds(options, 60.0),
            connections=_positive(options, "connections", 8),
            tls=_truth(options, "tls", False),
            api_key=_api_key(options),
        )

    @property
    def address(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'wss' if self.tls else 'ws'}://{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


@dataclass(frozen=True)
class SteerOptions:
    """Another Steer's gRPC address. connections: most calls at the same time; timeout_s: longest wait for an answer."""

    address: str
    timeout_s: float = 10.0
    connections: int = 4

    @classmethod
    def of(cls, name: ModelName) -> SteerOptions:
        """Read and check; raises `ConfigError`."""
        name.refuse_unknown("timeout_s", "connections")
        host, port = host_and_port(name, 50051)
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return cls(address, _seconds(name.options, 10.0), _positive(name.options, "connections", 4))


def host_and_port(name: ModelName, default: int) -> tuple[str, int]:
    """`host:port`, `host` or `[v6]:port`."""
    host, separator, port = name.place.rpartition(":")
    if not separator or name.place.endswith("]"):
        host, port = name.place, str(default)
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ConfigError(f"{name.kind}://{name.place}: expected host:port, such as {name.kind}://127.0.0.1:{default}")
    return host, int(port)


def _api_key(options: Mapping[str, str]) -> str:
    variable = options.get("api_key_env", DEFAULT_KEY_VARIABLE)
    key = os.environ.get(variable, "")
    if not key and "api_key_env" in options:
        raise ConfigError(f"api_key_env names the environment variable {variable}, which is not set: export it")
    return key


def _truth(options: Mapping[str, str], key: str, default: bool) -> bool:
    text = options.get(key, str(default)).lower()
    if text not in ("true", "false"):
        raise ConfigError(f"option {key}={options[key]!r}: expected true or false")
    return text == "true"


def _positive(options: Mapping[str, str], key: str, default: int) -> int:
    value = integer(options, key, default)
    if value < 1:
        raise ConfigError(f"option {key}={value}: expected at least 1")
    return value


def _seconds(options: Mapping[str, str], default: float) -> float:
    value = number(options, "timeout_s", default)
    if not 0 < value < float("inf"):
        raise ConfigError(f"option timeout_s={value:g}: expected seconds above 0")
    return value
