"""The openpi endpoint over real sockets, spoken to with a plain websocket as `openpi-client` does."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import tyro
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from steer.cli.serve import Serve
from steer.decision import Request
from steer.engine import Engine
from steer.errors import ConfigError, UnavailableError, UnsupportedError
from steer.observation import Batch, Observation
from steer.openpi import codec
from steer.openpi.keys import KeyMap
from steer.server.openpi import OpenpiConfig
from steer.server.server import ServerConfig, running
from steer.spec import Array, ArraySpec
from tests.fakes import FakeCritic, FakePolicy

ROOT = Path(__file__).parents[2]
ANY_PORT = ServerConfig(address="127.0.0.1:0", warm_samples=2, max_message_bytes=100_000)
FRONT = ArraySpec("camera.front", "uint8", (2, 2, 3))


@contextmanager
def endpoint(engine: Engine | None = None, config: ServerConfig = ANY_PORT, **changes: Any) -> Iterator[str]:
    with running(
        engine or Engine(FakePolicy(), FakeCritic()), config, openpi=OpenpiConfig(port=0, **changes)
    ) as address:
        yield address


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with endpoint() as address:
        yield address


@contextmanager
def robot(address: str) -> Iterator[tuple[ClientConnection, dict[str, Any]]]:
    """A client that has read the metadata."""
    with connect(address, compression=None, max_size=None, proxy=None) as connection:
        yield connection, codec.unpack(receive(connection))


def receive(connection: ClientConnection) -> bytes:
    message = connection.recv(30)
    assert isinstance(message, bytes), message
    return message


def ask(connection: ClientConnection, message: Mapping[str, Any]) -> dict[str, Any]:
    connection.send(codec.pack(message))
    reply: dict[str, Any] = codec.unpack(receive(connection))
    return reply


def refused(connection: ClientConnection, message: Any) -> str:
    """The text of the error; the connection ends with 1011 after it, as the stock server's does."""
    connection.send(message if isinstance(message, (bytes, str)) else codec.pack(message))
    text = connection.recv(30)
    assert isinstance(text, str)
    with pytest.raises(ConnectionClosed) as closed:
        connection.recv(30)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1011
    return text


def state(seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=3).astype(np.float32)


def decided(frames: list[Array], seed: int, **changes: Any) -> Array:
    """The chunk of the same engine in this process, after these frames."""
    window = [frames[0], *frames][-2:]
    observation = Observation({"state": np.stack(window)}, np.array([len(frames) > 1, True]))
    request = Request(observation, seed=seed, num_samples=8, **changes)
    return Engine(FakePolicy(), FakeCritic()).decide([request])[0].chunk


# -- what a stock client sees


def test_the_metadata_comes_first_and_names_what_is_wanted(address: str) -> None:
    with robot(address) as (_, metadata):
        assert metadata["observation"] == {"state": {"dtype": "float32", "shape": [3]}}
        assert (metadata["action_horizon"], metadata["execute"]) == (4, 4)
        assert metadata["action_names"] == ["dx", "dy", "dz"]
        assert metadata["steer"]["policy"] == "fake-policy-1"


def test_the_reply_is_the_steered_chunk_and_no_other_array(address: str) -> None:
    with robot(address) as (connection, _):
        reply = ask(connection, {"state": state(), "prompt": "stack the cubes", "unknown": np.zeros(2)})
        assert set(reply) == {"actions", "server_timing", "policy_version", "critic_version"}
        assert (reply["policy_version"], reply["critic_version"]) == ("fake-policy-1", "fake-critic-1")
        assert set(reply["server_timing"]) == {"infer_ms"}
        np.testing.assert_array_equal(reply["actions"], decided([state()], seed=0))
        assert set(ask(connection, {"state": state()})["server_timing"]) == {"infer_ms", "prev_total_ms"}


def test_a_connection_keeps_the_window_and_counts_its_seeds(address: str) -> None:
    frames = [state(i) for i in range(4)]
    with robot(address) as (connection, _):
        for i in range(4):
            reply = ask(connection, {"state": frames[i]})
            np.testing.assert_array_equal(reply["actions"], decided(frames[: i + 1], seed=i))


@pytest.mark.parametrize("how", ["reset", "connect"])
def test_a_reset_or_a_new_connection_begins_a_session(address: str, how: str) -> None:
    with robot(address) as (connection, _):
        ask(connection, {"state": state(1)})
        if how == "reset":
            reply = ask(connection, {"state": state(2), "reset": True})
    if how == "connect":
        with robot(address) as (connection, _):
            reply = ask(connection, {"state": state(2)})
    np.testing.assert_array_equal(reply["actions"], decided([state(2)], seed=0))


def test_a_seed_of_the_client_is_taken(address: str) -> None:
    with robot(address) as (connection, _):
        for seed in (77, np.int64(-5)):
            reply = ask(connection, {"state": state(), "seed": seed, "reset": True})
            np.testing.assert_array_equal(reply["actions"], decided([state()], seed=int(seed)))


def test_two_clients_have_windows_of_their_own(address: str) -> None:
    with robot(address) as (one, _), robot(address) as (other, _):
        for i in range(3):
            mine, theirs = ask(one, {"state": state(i)}), ask(other, {"state": state(10 + i)})
            np.testing.assert_array_equal(mine["actions"], decided([state(j) for j in range(i + 1)], seed=i))
            np.testing.assert_array_equal(theirs["actions"], decided([state(10 + j) for j in range(i + 1)], seed=i))


def test_many_clients_at_once_are_all_answered(address: str) -> None:
    def drive(_: int) -> Array:
        with robot(address) as (connection, _metadata):
            return np.stack([ask(connection, {"state": state(i)})["actions"] for i in range(5)])

    with ThreadPoolExecutor(8) as pool:
        chunks = list(pool.map(drive, range(8)))
    for each in chunks[1:]:
        np.testing.assert_allclose(each, chunks[0], atol=1e-6)


def test_another_steer_gets_candidates_when_it_asks(address: str) -> None:
    window = np.stack([state(1), state(2)])
    asked = {"state": window, "mask": np.ones(2, np.bool_), "num_samples": 5, "seed": 3, "temperature": 0.5}
    with robot(address) as (connection, _):
        reply = ask(connection, asked)
    assert set(reply) == {"actions", "candidates", "server_timing", "policy_version", "critic_version"}
    assert reply["candidates"].shape == (5, 4, 3)
    np.testing.assert_array_equal(reply["actions"], reply["candidates"][0])


def test_floats_of_another_width_are_taken(address: str) -> None:
    wide = state().astype(">f8")
    with robot(address) as (connection, _):
        np.testing.assert_array_equal(ask(connection, {"state": wide})["actions"], decided([state()], seed=0))


def test_names_and_prefix_can_be_set() -> None:
    keys = KeyMap({"state": "observation:state"})
    engine = Engine(FakePolicy(), FakeCritic(prefixes=(2, 4)))
    with endpoint(engine, execute=2, keys=keys) as address, robot(address) as (connection, metadata):
        assert metadata["observation"] == {"observation:state": {"dtype": "float32", "shape": [3]}}
        assert metadata["execute"] == 2
        assert ask(connection, {"observation": {"state": state()}})["actions"].shape == (4, 3)
        assert "lacks ['observation:state']" in refused(connection, {"state": state()})


def test_without_a_critic_the_policy_answers_alone() -> None:
    with endpoint(Engine(FakePolicy(stochastic=False))) as address, robot(address) as (connection, _):
        assert ask(connection, {"state": state()})["actions"].shape == (4, 3)


def test_the_health_page_answers(address: str) -> None:
    with urllib.request.urlopen(f"{address.replace('ws:', 'http:')}/healthz", timeout=30) as page:
        assert page.read() == b"OK\n"


# -- what is refused

BAD = {
    "a missing key": ({"prompt": "x"}, "SpecError: the observation lacks ['state']; it has ['prompt']"),
    "another shape": ({"state": np.zeros(4, np.float32)}, "expected (3)"),
    "whole numbers": ({"state": np.zeros(3, np.int64)}, "expected float32"),
    "not finite": ({"state": np.full(3, np.nan, np.float32)}, "ee.x = nan is not finite"),
    "a list": ({"state": [0.0, 0.0, 0.0]}, "got list"),
    "a wrong prompt": ({"state": state(), "prompt": 3}, "prompt: got int"),
    "a wrong seed": ({"state": state(), "seed": 0.5}, "seed: got 0.5"),
    "a large seed": ({"state": state(), "seed": 2**63}, "64 bits"),
    "no candidates": ({"state": state(), "num_samples": 0}, "UnsupportedError: 0 candidates"),
    "a wrong temperature": ({"state": state(), "temperature": "hot"}, "temperature: got 'hot'"),
    "a wrong mask": ({"state": state()[None], "mask": 1}, "mask: got int"),
    "half a window": ({"state": state()[None], "mask": np.ones(1, np.bool_)}, "mask: got shape (1,), expected (2,)"),
    "text": ("hello", "got a text message"),
    "no msgpack": (b"\xc1", "no openpi message"),
    "no map": (codec.pack([1]), "got list, expected a map"),
    "an object array": (
        msgpack.packb({"state": {b"__ndarray__": True, b"data": b"", b"dtype": "|O", b"shape": [0]}}),
        "dtype '|O'",
    ),
}


@pytest.mark.parametrize(("message", "reason"), BAD.values(), ids=BAD)
def test_what_is_malformed_is_told_and_ends_the_connection(address: str, message: Any, reason: str) -> None:
    with robot(address) as (connection, _):
        assert reason in refused(connection, message)
    with robot(address) as (connection, _):
        ask(connection, {"state": state()})


def test_bytes_that_are_no_frame_end_only_their_connection(address: str) -> None:
    with robot(address) as (connection, _), robot(address) as (other, _):
        connection.socket.sendall(b"\xff\x7f what is this")
        with pytest.raises(ConnectionClosed) as closed:
            connection.recv(30)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1002
        assert ask(other, {"state": state()})["actions"].shape == (4, 3)


def test_a_connection_that_ends_in_mid_message_is_forgotten(address: str) -> None:
    with robot(address) as (connection, _):
        connection.socket.sendall(b"\x82\xfe\x10\x00half")
        connection.socket.shutdown(socket.SHUT_RDWR)
    with robot(address) as (connection, _):
        ask(connection, {"state": state()})


def test_a_message_over_the_limit_ends_the_connection(address: str) -> None:
    with robot(address) as (connection, _), pytest.raises(ConnectionClosed) as closed:
        ask(connection, {"state": np.zeros(100_000, np.float32)})
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


class Seeing(FakePolicy):
    """Wants an image, too."""

    def __init__(self) -> None:
        super().__init__(window=1)
        object.__setattr__(self.spec.observation, "arrays", (*self.spec.observation.arrays, FRONT))


def test_an_image_of_floats_is_refused() -> None:
    with endpoint(Engine(Seeing())) as address, robot(address) as (connection, _):
        ask(connection, {"state": state(), "camera.front": np.zeros((2, 2, 3), np.uint8)})
        reason = refused(connection, {"state": state(), "camera.front": np.zeros((2, 2, 3), np.float32)})
    assert "camera.front: got dtype float32, expected uint8" in reason


class Broken(FakePolicy):
    """Fails with an error that is none of ours, once it is warm."""

    calls = 0

    def encode(self, observations: Batch) -> Array:
        self.calls += 1
        if self.calls > 4:
            raise RuntimeError("weights of /srv/secret are gone")
        return super().encode(observations)


def test_an_internal_error_shows_nothing_of_the_inside() -> None:
    with endpoint(Engine(Broken())) as address, robot(address) as (connection, _):
        text = refused(connection, {"state": state()})
    assert "internal error" in text
    assert "secret" not in text
    assert "Traceback" not in text


def test_a_web_page_cannot_connect(address: str) -> None:
    with pytest.raises(InvalidStatus) as raised, connect(address, origin="https://example.org", proxy=None):  # type: ignore[arg-type]
        pass
    assert raised.value.response.status_code == 403


def test_too_many_connections_are_turned_away() -> None:
    with endpoint(max_connections=1) as address, robot(address):
        second = connect(address, proxy=None).__enter__()
        with pytest.raises(ConnectionClosed) as closed:
            second.recv(30)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1013


REFUSED = {
    "no policy": (Engine(None, FakeCritic()), {}, UnsupportedError, "bring no candidates"),
    "a prefix that is not scored": (
        Engine(FakePolicy(), FakeCritic()),
        {"execute": 3},
        ConfigError,
        "--openpi-execute 3",
    ),
    "more than a chunk": (Engine(FakePolicy()), {"execute": 5}, ConfigError, "give 1 to 4"),
    "an unknown key": (
        Engine(FakePolicy()),
        {"keys": KeyMap({"joints": "j"})},
        ConfigError,
        r"no observations \['joints'\]",
    ),
    "a reserved key": (Engine(FakePolicy()), {"keys": KeyMap({"state": "prompt"})}, ConfigError, "--openpi-map"),
}


@pytest.mark.parametrize(("engine", "changes", "error", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_no_request_could_have_is_refused_at_the_start(
    engine: Engine, changes: dict[str, Any], error: type[Exception], reason: str
) -> None:
    with pytest.raises(error, match=reason), endpoint(engine, **changes):
        pass


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = running(Engine(FakePolicy()), ANY_PORT, openpi=OpenpiConfig(port=port))
        with pytest.raises(UnavailableError, match=f"127.0.0.1:{port} for openpi"), server:
            pass


# -- while an inference takes its time


class Gated(FakePolicy):
    """Waits, once it is warm, until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go, self.warm = threading.Event(), threading.Event(), False

    def encode(self, observations: Batch) -> Array:
        if self.warm:
            self.asked.set()
            assert self.go.wait(30)
        return super().encode(observations)


def test_pings_and_health_are_answered_during_an_inference() -> None:
    policy = Gated()
    with endpoint(Engine(policy)) as address, robot(address) as (connection, _):
        policy.warm = True
        connection.send(codec.pack({"state": state()}))
        assert policy.asked.wait(30)
        assert connection.ping().wait(30)
        with urllib.request.urlopen(f"{address.replace('ws:', 'http:')}/healthz", timeout=30) as page:
            assert page.read() == b"OK\n"
        with robot(address) as (_, metadata):
            assert metadata["action_horizon"] == 4
        policy.go.set()
        assert codec.unpack(receive(connection))["actions"].shape == (4, 3)


def test_a_client_that_goes_away_does_not_disturb_others() -> None:
    policy = Gated()
    with endpoint(Engine(policy)) as address:
        with robot(address) as (connection, _):
            policy.warm = True
            connection.send(codec.pack({"state": state()}))
            assert policy.asked.wait(30)
            connection.socket.shutdown(socket.SHUT_RDWR)
        policy.go.set()
        with robot(address) as (connection, _):
            assert ask(connection, {"state": state()})["actions"].shape == (4, 3)


def test_the_end_of_the_server_waits_for_answers_and_says_goodbye() -> None:
    policy = Gated()
    with ThreadPoolExecutor(1) as pool:
        with endpoint(Engine(policy)) as address:
            busy = connect(address, compression=None, proxy=None).__enter__()
            idle = connect(address, compression=None, proxy=None).__enter__()
            busy.recv(30), idle.recv(30)
            policy.warm = True
            busy.send(codec.pack({"state": state()}))
            assert policy.asked.wait(30)

            def goodbye() -> int:
                with pytest.raises(ConnectionClosed) as closed:
                    idle.recv(30)
                policy.go.set()
                assert closed.value.rcvd is not None
                return closed.value.rcvd.code

            code = pool.submit(goodbye)
        assert code.result(30) == 1001
        assert codec.unpack(receive(busy))["actions"].shape == (4, 3)
        busy.close(), idle.close()


# -- as a process

SERVER = """
import sys
from steer.engine import Engine
from steer.server.openpi import OpenpiConfig
from steer.server.server import ServerConfig, serve
from tests.fakes import FakeCritic, FakePolicy
config = ServerConfig(address="127.0.0.1:0", warm_samples=2)
serve(Engine(FakePolicy(), FakeCritic()), config, announce=lambda a: print(a, flush=True), openpi=OpenpiConfig(port=0))
"""


def test_one_signal_stops_both_endpoints() -> None:
    with subprocess.Popen([sys.executable, "-c", SERVER], cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            server.stdout.readline()
            address = next(line for line in server.stdout if line.startswith("ws://")).strip()
            with robot(address) as (connection, _):
                ask(connection, {"state": state()})
                server.send_signal(signal.SIGINT)
                with pytest.raises(ConnectionClosed):
                    connection.recv(30)
            assert server.wait(30) == 0
        finally:
            server.kill()


def test_the_metadata_is_plain_data(address: str) -> None:
    with robot(address) as (_, metadata):
        assert json.loads(json.dumps(metadata)) == metadata


def test_the_flags_of_the_command_make_the_endpoint() -> None:
    words = (
        "--policy p --openpi-port 0 --openpi-execute 4 --openpi-samples 16 --openpi-map observation/state=state i:a=b"
    )
    config = tyro.cli(Serve, args=words.split()).openpi()
    keys = KeyMap({"state": "observation/state", "b": "i:a"})
    assert config == OpenpiConfig(port=0, execute=4, num_samples=16, keys=keys)
    assert tyro.cli(Serve, args=["--policy", "p"]).openpi() is None
