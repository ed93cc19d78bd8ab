"""Policies behind a network: `openpi://host:port` and `grpc://host:port`, another Steer. Each is an entry in the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from steer.model_name import ModelName
from steer.registry import Family

if TYPE_CHECKING:
    from policies.remote.openpi import OpenpiPolicy
    from policies.remote.steer import SteerPolicy


def load_openpi(name: ModelName) -> OpenpiPolicy:
    """`openpi://host:8000?robot=robot.json&horizon=10&map=camera.front=observation/image`, see `policies.remote.options`."""
    from policies.remote.openpi import OpenpiPolicy
    from policies.remote.options import OpenpiOptions

    return OpenpiPolicy.connect(OpenpiOptions.of(name))


def load_grpc(name: ModelName) -> SteerPolicy:
    """`grpc://host:50051?timeout_s=10&connections=4`."""
    from policies.remote.options import SteerOptions
    from policies.remote.steer import SteerPolicy

    return SteerPolicy.connect(SteerOptions.of(name))


OPENPI = Family("openpi", "a policy behind openpi's websocket protocol", load_openpi)
GRPC = Family("grpc", "the policy of another Steer", load_grpc)
