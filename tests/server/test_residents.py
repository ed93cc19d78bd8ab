"""Which version answers which session, and that a batch is of one version."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import msgpack
import numpy as np
from websockets.sync.client import ClientConnection, connect

from steer.client.steering_client import SteeringClient
from steer.decision import Decision, Request
from steer.engine import Engine
from steer.observation import Observation
from steer.openpi import codec
from steer.server.batcher import Batcher
from steer.server.metrics import Metrics
from steer.server.openpi import OpenpiConfig
from steer.server.residents import Pin, Resident, Residents
from steer.server.server import ServerConfig, running
from tests.client.doubles import FakeClock
from tests.fakes import ROBOT, FakeCritic, FakePolicy


def engine(version: int) -> Engine:
    policy, critic = FakePolicy(window=1), FakeCritic()
    policy.version, critic.version = f"p{version}", f"c{version}"
    return Engine(policy, critic)


class Table:
    """Residents, and what their sessions are told."""

    def __init__(self, max_pin_s: float = 60.0) -> None:
        self.clock = FakeClock()
        self.residents = Residents(engine(0), 0, max_pin_s, self.clock.now)

    def asked(self, pin: Pin, episode: int = 0) -> int:
        """The version that decides for this session."""
        with self.residents.deciding(pin, episode) as decides:
            return int(decides.policy.version[1:])  # type: ignore[union-attr]  # it has one

    def swap(self, number: int) -> None:
        self.residents.swap(Resident(number, engine(number)))


def test_a_session_changes_at_the_end_of_its_episode() -> None:
    table, pin = Table(), Pin()
    assert table.asked(pin, 0) == 0
    table.swap(1)
    assert [table.asked(pin, episode) for episode in (0, 0, 1, 1, 7)] == [0, 0, 1, 1, 1]
    assert table.asked(Pin(), 0) == 1


def test_a_session_changes_in_mid_episode_once_its_version_was_superseded_for_long() -> None:
    table, pin = Table(max_pin_s=5.0), Pin()
    table.clock.time += 100.0
    assert table.asked(pin) == 0
    table.swap(1)
    table.clock.time += 4.9
    assert table.asked(pin) == 0
    table.clock.time += 0.2
    assert table.asked(pin) == 1


def test_the_older_version_is_kept_for_those_who_need_it() -> None:
    table, pin, other = Table(), Pin(), Pin()
    residents = table.residents
    table.asked(pin), table.asked(other)
    table.swap(1)
    residents.retire()
    assert residents.older is not None
    assert residents.pinned() == 2
    table.asked(pin, 1)
    del other  # its session ended
    assert residents.pinned() == 0
    residents.retire()
    assert residents.older is None


def test_a_decision_in_progress_keeps_its_version_however_long_it_takes() -> None:
    table, pin = Table(max_pin_s=1.0), Pin()
    residents = table.residents
    with residents.deciding(pin, 0):
        table.swap(1)
        table.clock.time += 10.0
        assert residents.pinned() == 0
        residents.retire()
        assert residents.older is not None
    residents.retire()
    assert residents.older is None


def test_the_older_version_can_come_back() -> None:
    table, pin = Table(), Pin()
    first = table.residents.current
    table.asked(pin)
    table.swap(1)
    newer = Pin()
    assert table.asked(newer) == 1
    table.residents.swap(first)
    assert [table.asked(pin, 0), table.asked(newer, 0), table.asked(newer, 1)] == [0, 1, 0]


def observation() -> Observation:
    return Observation({"state": np.zeros((1, 3), np.float32)}, np.ones(1, np.bool_))


class Gated(Engine):
    """Waits at a gate, and remembers the seeds of its batches."""

    def __init__(self, version: int, gate: threading.Event, batches: list[tuple[int, list[int]]]) -> None:
        made = engine(version)
        super().__init__(made.policy, made.critic)
        self._version, self._gate, self._batches = version, gate, batches

    def decide(self, requests: Sequence[Request]) -> list[Decision]:
        self._batches.append((self._version, [request.seed for request in requests]))
        assert self._gate.wait(60)
        return super().decide(requests)


def test_a_batch_is_of_one_version() -> None:
    gate, batches = threading.Event(), list[tuple[int, list[int]]]()
    old, new = Gated(0, gate, batches), Gated(1, gate, batches)

    async def main() -> list[Decision]:
        batcher = Batcher(Metrics())
        serving = asyncio.create_task(batcher.run())
        asked = [
            asyncio.create_task(batcher.submit(of, Request(observation(), seed=seed, num_samples=2)))
            for seed, of in enumerate((old, old, new, old, new))
        ]
        await asyncio.sleep(0)
        gate.set()
        decisions = await asyncio.gather(*asked)
        batcher.close()
        await serving
        return decisions

    decisions = asyncio.run(main())
    assert [decision.policy_version for decision in decisions] == ["p0", "p0", "p1", "p0", "p1"]
    assert sorted(seed for _, seeds in batches for seed in seeds) == [0, 1, 2, 3, 4]
    for version, seeds in batches:
        assert all((seed in (2, 4)) == bool(version) for seed in seeds)


def ask(connection: ClientConnection, **more: object) -> str:
    """The version of the policy that an openpi client is answered by."""
    connection.send(codec.pack({"state": np.zeros(3, np.float32), **more}))
    reply = connection.recv(timeout=60)
    assert isinstance(reply, bytes), reply
    return str(codec.unpack_map(reply, "reply")["policy_version"])


def test_an_openpi_connection_is_a_session() -> None:
    residents = Residents(engine(0))
    config = ServerConfig(address="127.0.0.1:0", warm_samples=2)
    with (
        running(residents, config, openpi=OpenpiConfig(port=0)) as address,
        connect(address) as connection,
        connect(address) as other,
    ):
        first = connection.recv(timeout=60)
        assert isinstance(first, bytes)
        assert msgpack.unpackb(first)["steer"]["policy"] == "p0"
        other.recv(timeout=60)
        assert (ask(connection), ask(other)) == ("p0", "p0")
        residents.swap(Resident(1, engine(1)))
        assert (ask(connection), ask(connection, reset=True), ask(connection), ask(other)) == ("p0", "p1", "p1", "p0")
        with connect(address) as late:
            told = late.recv(timeout=60)
            assert isinstance(told, bytes)
            assert msgpack.unpackb(told)["steer"]["policy"] == "p1"
            assert ask(late) == "p1"


def test_open_and_decisions_say_the_version() -> None:
    residents = Residents(engine(0))
    with running(residents, ServerConfig(address="127.0.0.1:0", warm_samples=2)) as address:
        client = SteeringClient(address, ROBOT, timeout_s=60.0)
        assert (client.opened.policy_version, client.opened.critic_version) == ("p0", "c0")
        client.locate(0, 0)
        assert client.infer(Request(observation(), num_samples=2)).critic_version == "c0"
        residents.swap(Resident(1, engine(1)))
        client.locate(1, 0)
        decision = client.infer(Request(observation(), num_samples=2))
        assert (decision.policy_version, decision.critic_version) == ("p1", "c1")
        later = SteeringClient(address, ROBOT, timeout_s=60.0)
        assert (later.opened.policy_version, later.opened.critic_version) == ("p1", "c1")
        client.close()
        later.close()
