"""The policy contract over the wire: the policy of another Steer, both ways to reach it, and a stock openpi server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from steer import registry
from steer.engine import Engine
from steer.policy import Policy
from steer.server.openpi import OpenpiConfig
from steer.server.server import ServerConfig, running
from tests.contracts.policy_contract import PolicyContract
from tests.policies import toys
from tests.policies.remote.robots import openpi
from tests.policies.remote.stock import stock

ANY_PORT = ServerConfig(address="127.0.0.1:0", warm_samples=2)


def far_policy(folder: Path) -> Policy:
    config = replace(toys.SMALL, window=2, keys=("state", "camera.front"))
    return toys.saved(toys.trained(config, toys.image_frames(), steps=20), folder / "model")


@contextmanager
def over_grpc(folder: Path) -> Iterator[Policy]:
    with running(Engine(far_policy(folder)), ANY_PORT) as address:
        yield registry.policy(f"grpc://{address}")


@contextmanager
def over_openpi_from_steer(folder: Path) -> Iterator[Policy]:
    with running(Engine(far_policy(folder)), ANY_PORT, openpi=OpenpiConfig(port=0)) as address:
        yield registry.policy(address.replace("ws:", "openpi:"))


@contextmanager
def over_openpi_from_stock(folder: Path) -> Iterator[Policy]:
    with stock() as port:
        yield openpi(port, folder)


@pytest.fixture(
    scope="module",
    params=(over_grpc, over_openpi_from_steer, over_openpi_from_stock),
    ids=lambda place: place.__name__,
)
def policy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Policy]:
    place: Callable[[Path], AbstractContextManager[Policy]] = request.param
    with place(tmp_path_factory.mktemp("policy")) as policy:
        yield policy
        policy.close()  # type: ignore[attr-defined]  # these hold connections


class TestRemotePolicies(PolicyContract):
    def test_the_far_side_says_how_it_is_seeded(self, policy: Policy) -> None:
        stock_like = policy.version.startswith("ws://")
        assert policy.spec.seeding == ("none" if stock_like else "request")
        assert policy.spec.temperature is not stock_like
        assert not policy.spec.trainable
