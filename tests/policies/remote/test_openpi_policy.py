"""`openpi://` against servers that answer, misbehave and die."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from structlog.testing import capture_logs

from steer import registry
from steer.decision import Request
from steer.engine import Engine
from steer.errors import ConfigError, DeadlineError, SpecError, SteerError, UnavailableError, UnsupportedError
from steer.observation import Batch, Task
from steer.openpi import codec
from steer.openpi.keys import KeyMap
from steer.policy import Policy
from steer.server.openpi import OpenpiConfig
from steer.server.server import ServerConfig, running
from steer.spec import Array
from tests.fakes import FakeCritic, FakePolicy
from tests.policies.remote.robots import openpi
from tests.policies.remote.stock import TRACEBACK, A, H, chunk, stock

ROOT = Path(__file__).parents[3]


def batch(policy: Policy, rows: int = 1, instruction: str = "") -> Batch:
    rng = np.random.default_rng(0)
    observations = [policy.spec.observation.generate(rng) for _ in range(rows)]
    return Batch.stack(observations, [Task(instruction)] * rows)


def draw(policy: Policy, samples: int = 1, rows: int = 1, instruction: str = "") -> Array:
    context = policy.encode(batch(policy, rows, instruction))
    return policy.sample(context, samples, np.arange(rows))


# -- what is sent and taken


def test_the_server_gets_its_own_names(tmp_path: Path) -> None:
    asked: list[Mapping[str, Any]] = []

    def answer(message: Mapping[str, Any]) -> Any:
        asked.append(message)
        return chunk(message)

    with stock(answer) as port:
        names = "state=observation/state,camera.front=images:cam_high"
        policy = openpi(port, tmp_path, map=names, channels_first="true")
        draw(policy, instruction="stack the cubes")
    (message,) = asked
    assert set(message) == {"observation/state", "images", "prompt"}
    assert message["prompt"] == "stack the cubes"
    assert (message["observation/state"].dtype, message["observation/state"].shape) == (np.float32, (3,))
    assert (message["images"]["cam_high"].dtype, message["images"]["cam_high"].shape) == (np.uint8, (3, 12, 16))


def test_without_an_instruction_the_server_takes_its_own(tmp_path: Path) -> None:
    with stock(lambda message: chunk(message) if "prompt" not in message else "no") as port:
        assert draw(openpi(port, tmp_path)).shape == (1, 1, H, A)


def test_a_long_instruction_arrives_whole(tmp_path: Path) -> None:
    long = "pick up the cube " * 118
    with stock(lambda message: chunk(message) if message["prompt"] == long else "cut") as port:
        assert draw(openpi(port, tmp_path), instruction=long).shape == (1, 1, H, A)


def test_only_mapped_observations_are_wanted(tmp_path: Path) -> None:
    with stock() as port:
        assert openpi(port, tmp_path, map="state=observation/state").spec.observation.keys == ("state",)


def test_candidates_come_from_concurrent_calls_in_their_order(tmp_path: Path) -> None:
    together = threading.Barrier(4, timeout=30)

    def answer(message: Mapping[str, Any]) -> Any:
        together.wait()
        return {"actions": np.full((H, A), 0.01, np.float64)}

    with stock(answer) as port:
        candidates = draw(openpi(port, tmp_path, connections=4), samples=2, rows=2)
    assert (candidates.shape, candidates.dtype) == ((2, 2, H, A), np.float32)


def test_no_more_connections_than_allowed(tmp_path: Path) -> None:
    lock, running_now, most = threading.Lock(), 0, 0

    def answer(message: Mapping[str, Any]) -> Any:
        nonlocal running_now, most
        with lock:
            running_now += 1
            most = max(most, running_now)
        reply = chunk(message)
        with lock:
            running_now -= 1
        return reply

    with stock(answer) as port:
        draw(openpi(port, tmp_path, connections=2), samples=16)
    assert most <= 2


def test_the_key_is_sent_and_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str | None] = []
    monkeypatch.setenv("MY_KEY", "s3cret")
    with stock(process_request=lambda connection, request: seen.append(request.headers.get("Authorization"))) as port:
        policy = openpi(port, tmp_path, api_key_env="MY_KEY")
        assert seen == ["Api-Key s3cret"]
        assert "s3cret" not in repr(vars(policy))


def test_a_proxy_of_the_environment_is_not_asked_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with stock() as port:
        assert draw(openpi(port, tmp_path)).shape == (1, 1, H, A)


def test_the_spec_says_what_a_stock_server_cannot_do(tmp_path: Path) -> None:
    with stock(metadata={"name": "pi0"}) as port:
        policy = openpi(port, tmp_path)
        assert policy.version == f"ws://127.0.0.1:{port} pi0"
        with pytest.raises(UnsupportedError, match="temperature"):
            policy.sample(policy.encode(batch(policy)), 1, np.array([0]), 0.5)
        steady = openpi(port, tmp_path, stochastic="false")
        with pytest.raises(UnsupportedError, match="deterministic"):
            draw(steady, samples=2)


def test_the_horizon_of_the_metadata_is_taken(tmp_path: Path) -> None:
    with stock(metadata={"action_horizon": H, "reset_pose": np.zeros(6)}) as port:
        policy = openpi(port, tmp_path, horizon=None)
        assert policy.spec.horizon == H
        draw(policy)
        with pytest.raises(ConfigError, match="4 steps, the name 10"):
            openpi(port, tmp_path, horizon=10)


def test_a_goal_image_is_refused(tmp_path: Path) -> None:
    with stock() as port:
        policy = openpi(port, tmp_path)
        observed = batch(policy)
        goal = Batch(observed.arrays, observed.mask, (Task(goal_image=np.zeros((4, 4, 3), np.uint8)),))
        with pytest.raises(UnsupportedError, match="goal image"):
            policy.encode(goal)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("?horizon=4", "robot=SIDECAR"),
        ("?robot=none.json", "horizon=STEPS"),
        ("?robot=none.json&horizon=4", "cannot be read"),
        ("?robots=1", "no options"),
        ("?horizon=0", "at least 1"),
        ("?timeout_s=0", "seconds above 0"),
        ("?channels_first=yes", "true or false"),
        ("?api_key_env=NOT_THERE", "not set"),
        ("?map=state", "NAME=NAME"),
    ],
)
def test_a_name_that_does_not_say_enough_is_refused(options: str, reason: str) -> None:
    with stock() as port, pytest.raises(ConfigError, match=reason):
        registry.policy(f"openpi://127.0.0.1:{port}{options}")


def test_a_critic_here_chooses_among_the_chunks_of_a_server_that_has_none(tmp_path: Path) -> None:
    with stock() as port:
        policy = openpi(port, tmp_path, map="state=observation/state")
        observed = policy.spec.observation.generate(np.random.default_rng(0))
        (decision,) = Engine(policy, FakeCritic()).decide([Request(observed, num_samples=8)])
    assert len(decision.candidates) == 8
    assert decision.chosen == decision.values.argmax()
    assert decision.spread > 0
    assert decision.policy_version == f"ws://127.0.0.1:{port}"


# -- another Steer on the far side


def test_a_steer_takes_seeds_and_a_window() -> None:
    local = FakePolicy()
    config = ServerConfig(address="127.0.0.1:0", warm_samples=2)
    keys = KeyMap({"state": "observation/state"})
    with running(Engine(FakePolicy(), FakeCritic()), config, openpi=OpenpiConfig(0, keys=keys)) as address:
        policy = registry.policy(f"{address.replace('ws:', 'openpi:')}?map=joints=observation/state")
        assert policy.version == local.version
        assert (policy.spec.observation.keys, policy.spec.observation.window) == (("joints",), 2)
        observed = batch(policy, rows=3)
        got = policy.sample(policy.encode(observed), 5, np.array([3, 4, 5]), 0.5)
        mine = Batch({"state": observed.arrays["joints"]}, observed.mask)
        np.testing.assert_array_equal(got, clipped(local.sample(local.encode(mine), 5, np.array([3, 4, 5]), 0.5)))
        with pytest.raises(ConfigError, match="leave out robot"):
            registry.policy(f"{address.replace('ws:', 'openpi:')}?horizon=4")


def clipped(chunks: Array) -> Array:
    return np.clip(chunks, np.float32(-0.1), np.float32(0.1))


# -- what goes wrong


def test_an_error_of_the_server_is_its_last_line_and_the_log_has_the_rest(tmp_path: Path) -> None:
    with stock(lambda message: TRACEBACK) as port:
        policy = openpi(port, tmp_path)
        with capture_logs() as logs, pytest.raises(SteerError, match="KeyError: 'observation/state'") as raised:
            draw(policy)
    assert "secret.py" not in str(raised.value)
    assert [log["text"] for log in logs] == [TRACEBACK]


def test_after_an_error_the_next_call_works(tmp_path: Path) -> None:
    replies = iter([TRACEBACK])
    with stock(lambda message: next(replies, None) or chunk(message)) as port:
        policy = openpi(port, tmp_path)
        with pytest.raises(SteerError):
            draw(policy)
        assert draw(policy).shape == (1, 1, H, A)


BAD = {
    "no actions": {"action": np.zeros((H, A))},
    "other shape": {"actions": np.zeros((H + 1, A))},
    "a list": {"actions": [[0.0] * A] * H},
    "whole numbers": {"actions": np.zeros((H, A), np.int64)},
    "not finite": {"actions": np.full((H, A), np.nan)},
    "no map": [1, 2],
    "no msgpack": b"\xc1 what",
}


@pytest.mark.parametrize("reply", BAD.values(), ids=BAD)
def test_a_malformed_reply_is_a_spec_error(reply: Any, tmp_path: Path) -> None:
    with stock(lambda message: reply) as port, pytest.raises(SpecError, match=r"ws://127\.0\.0\.1"):
        draw(openpi(port, tmp_path))


def test_a_slow_server_is_a_deadline_error_and_its_late_reply_is_dropped(tmp_path: Path) -> None:
    release, calls = threading.Event(), iter(["slow"])

    def answer(message: Mapping[str, Any]) -> Any:
        if next(calls, None):
            release.wait(30)
            return {"actions": np.full((H, A), 0.09)}
        return {"actions": np.zeros((H, A))}

    with stock(answer) as port:
        policy = openpi(port, tmp_path, timeout_s=2)
        with pytest.raises(DeadlineError, match=r"within 2 s"):
            draw(policy)
        release.set()
        np.testing.assert_array_equal(draw(policy), np.zeros((1, 1, H, A)))


def test_one_failing_call_of_many_fails_the_request(tmp_path: Path) -> None:
    replies = iter([TRACEBACK])
    with (
        stock(lambda message: next(replies, None) or chunk(message)) as port,
        pytest.raises(SteerError, match="KeyError"),
    ):
        draw(openpi(port, tmp_path, connections=2), samples=8)


def test_nobody_there_is_unavailable(tmp_path: Path) -> None:
    with stock() as port:
        pass
    with pytest.raises(UnavailableError, match=f"no openpi server at ws://127.0.0.1:{port}"):
        openpi(port, tmp_path)


def test_something_else_there_is_unavailable(tmp_path: Path) -> None:
    page = stock(process_request=lambda connection, request: connection.respond(404, "not here\n"))
    with page as port, pytest.raises(UnavailableError, match="is no openpi server"):
        openpi(port, tmp_path)


def test_metadata_that_is_no_map_is_refused(tmp_path: Path) -> None:
    with stock(metadata=[1]) as port, pytest.raises(SpecError, match="metadata"):  # type: ignore[arg-type]
        openpi(port, tmp_path)


def test_a_steer_of_another_version_is_refused(tmp_path: Path) -> None:
    with stock(metadata={"steer": {"protocol": 99}}) as port, pytest.raises(SpecError, match="another version"):
        openpi(port, tmp_path)


# -- real processes


@contextmanager
def process(port: int = 0) -> Iterator[tuple[subprocess.Popen[str], int]]:
    started = subprocess.Popen(
        [sys.executable, "-m", "tests.policies.remote.stock", str(port)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with started:
        assert started.stdout is not None
        try:
            yield started, int(started.stdout.readline())
        finally:
            started.kill()


def test_a_server_that_dies_in_mid_call_is_unavailable_and_one_that_comes_back_is_used(tmp_path: Path) -> None:
    with process() as (_, port):
        policy = openpi(port, tmp_path)
        draw(policy)
        with pytest.raises(UnavailableError, match=str(port)):
            draw(policy, instruction="die")
        with pytest.raises(UnavailableError, match="no openpi server"):
            draw(policy)
    with process(port):
        assert draw(policy, samples=3).shape == (1, 3, H, A)


def test_a_server_that_is_killed_in_mid_call_is_unavailable(tmp_path: Path) -> None:
    with process() as (server, port):
        policy = openpi(port, tmp_path)
        failed: list[BaseException] = []

        def ask() -> None:
            try:
                draw(policy, instruction="hang")
            except SteerError as error:
                failed.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        assert server.stdout is not None
        assert server.stdout.readline() == "hanging\n"
        server.kill()
        thread.join(30)
    assert isinstance(failed[0], UnavailableError)


def test_another_policy_on_the_same_port_is_noticed(tmp_path: Path) -> None:
    with stock(metadata={"name": "one"}) as port:
        policy = openpi(port, tmp_path)
        draw(policy)
    with stock(metadata={"name": "two"}, port=port), pytest.raises(SpecError, match="serves another policy"):
        draw(policy)


def test_an_error_of_a_steer_keeps_its_class() -> None:
    config = ServerConfig(address="127.0.0.1:0", warm_samples=2)
    with running(Engine(FakePolicy(seeding="call")), config, openpi=OpenpiConfig(0)) as address:
        policy = registry.policy(address.replace("ws:", "openpi:"))
        context = policy.encode(batch(policy))
        context.requests[0]["state"] = codec.pack({})
        with pytest.raises(SpecError, match="state"):
            policy.sample(context, 1, np.array([0]))


# -- what a message may hold


def test_a_scalar_too_large_for_its_dtype_is_refused() -> None:
    message = {b"__npgeneric__": True, b"data": 1e30, b"dtype": "<f2"}
    with pytest.raises(SpecError, match="a numpy scalar of float16 with value 1e"):
        codec.unpack(msgpack.packb(message))
    assert codec.unpack(msgpack.packb({**message, b"data": 2.0})) == np.float16(2.0)
