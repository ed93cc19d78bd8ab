"""Server and client over real sockets: round trips, and each way in which they can disagree."""

from __future__ import annotations

import asyncio
import socket
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from steer import wire
from steer.action import ActionAxis, ActionSpec
from steer.client.steering_client import SteeringClient
from steer.client.window import SentWindow
from steer.decision import Decision, Request
from steer.engine import Engine
from steer.errors import (
    ConfigError,
    DeadlineError,
    SessionError,
    SpecError,
    SteerError,
    UnavailableError,
    UnsupportedError,
)
from steer.observation import Observation, ObservationSpec
from steer.robot import RobotSpec
from steer.server.server import SERVICE, ServerConfig, SteeringServer, running
from steer.spec import ArraySpec
from steer.v1 import steering_pb2, steering_pb2_grpc
from tests.fakes import ACTION, ROBOT, STATE, FakeCritic, FakePolicy

ANY_PORT = ServerConfig(address="127.0.0.1:0", warm_samples=2)


def engine(**policy: Any) -> Engine:
    return Engine(FakePolicy(**policy), FakeCritic())


def request(seed: int = 0, samples: int = 8, **changes: Any) -> Request:
    state = np.random.default_rng(seed).normal(size=(2, 3)).astype(np.float32)
    made = Request(Observation({"state": state}, np.ones(2, np.bool_)), seed=seed, num_samples=samples)
    return replace(made, **changes)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with running(engine(), ANY_PORT) as address:
        yield address


@pytest.fixture
def client(address: str) -> Iterator[SteeringClient]:
    client = SteeringClient(address, ROBOT)
    yield client
    client.close()


def same(a: Decision, b: Decision) -> bool:
    return (
        a.candidates.tobytes() == b.candidates.tobytes()
        and a.scores.tobytes() == b.scores.tobytes()
        and (a.chosen, a.origins, a.executed, a.committed) == (b.chosen, b.origins, b.executed, b.committed)
    )


def test_through_the_wire_is_as_in_process(client: SteeringClient) -> None:
    for seed in range(5):
        assert same(client.infer(request(seed)), engine().decide([request(seed)])[0])


def test_committed_actions_travel(client: SteeringClient) -> None:
    committed = np.full((1, 3), 0.05, np.float32)
    decision = client.infer(request(committed=committed, execute=3))
    np.testing.assert_array_equal(decision.chunk[:1], committed)
    assert (decision.committed, decision.executed, len(decision.actions)) == (1, 3, 3)


def test_candidates_can_be_left_out(address: str) -> None:
    client = SteeringClient(address, ROBOT, omit_candidates=True)
    decision, whole = client.infer(request()), engine().decide([request()])[0]
    np.testing.assert_array_equal(decision.actions, whole.actions)
    assert len(decision.scores[0]) == 8
    client.close()


def test_rerank_chooses_among_what_the_caller_brings(client: SteeringClient) -> None:
    candidates = np.stack([np.full((4, 3), v, np.float32) for v in (-0.1, 0.01, 0.1)])
    observation = Observation({"state": np.zeros((2, 3), np.float32)}, np.ones(2, np.bool_))
    decision = client.rerank(Request(observation, candidates=candidates))
    assert decision.chosen == 1
    assert set(decision.origins) == {"caller"}


def test_a_critic_alone_reranks_and_does_not_infer() -> None:
    with running(Engine(None, FakeCritic(window=2)), ANY_PORT) as address:
        client = SteeringClient(address, ROBOT)
        assert client.opened.policy_version == ""
        assert client.rerank(request(candidates=np.zeros((2, 4, 3), np.float32))).chosen == 0
        with pytest.raises(UnsupportedError, match="no policy: bring candidates and call Rerank"):
            client.infer(request())
        client.close()


def test_rerank_without_a_critic_is_refused() -> None:
    with running(Engine(FakePolicy()), ANY_PORT) as address:
        client = SteeringClient(address, ROBOT)
        assert not client.opened.has_critic
        with pytest.raises(UnsupportedError, match="no critic"):
            client.rerank(request(candidates=np.zeros((2, 4, 3), np.float32)))
        client.close()


def test_open_says_what_the_models_want(client: SteeringClient) -> None:
    assert client.observation == ObservationSpec((STATE,), 2)
    assert client.horizon == 4
    assert (client.opened.policy_version, client.opened.critic_version) == ("fake-policy-1", "fake-critic-1")
    assert (client.opened.prefixes, client.opened.may_steer) == ((4,), None)


@pytest.mark.parametrize("verdict", [True, False])
def test_open_says_whether_the_critic_may_steer(verdict: bool) -> None:
    with running(engine(), ANY_PORT, may_steer=verdict) as address:
        client = SteeringClient(address, ROBOT)
        assert client.opened.may_steer is verdict
        client.close()


def axis(**changes: Any) -> tuple[ActionAxis, ...]:
    return (replace(ACTION.axes[0], **changes), *ACTION.axes[1:])


OTHER_ACTIONS = {
    "axes": replace(ACTION, axes=axis(name="forward")),
    "axis 'dx' unit": replace(ACTION, axes=axis(unit="mm")),
    "axis 'dx' low": replace(ACTION, axes=axis(low=-0.2)),
    "axis 'dx' high": replace(ACTION, axes=axis(high=0.2)),
    "kind": replace(ACTION, kind="velocity"),
    "frame": replace(ACTION, frame="tool"),
    "reference": replace(ACTION, reference="commanded"),
    "rotation": replace(ACTION, rotation="rpy"),
    "gripper": replace(ACTION, gripper="positive_opens"),
    "rate_hz": replace(ACTION, rate_hz=10.0),
}


@pytest.mark.parametrize("field", OTHER_ACTIONS)
def test_a_robot_that_differs_in_any_field_of_its_actions_is_refused(address: str, field: str) -> None:
    with pytest.raises(
        SpecError, match=rf"policy against robot: action {field}: .* against [\s\S]*critic against robot"
    ):
        SteeringClient(address, replace(ROBOT, action=OTHER_ACTIONS[field]))


@pytest.mark.parametrize("field", OTHER_ACTIONS)
def test_a_policy_and_a_critic_that_differ_are_not_served(field: str) -> None:
    with pytest.raises(SpecError, match=f"policy and critic do not agree:\n  action {field}"):
        Engine(FakePolicy(), FakeCritic(action=OTHER_ACTIONS[field]))


@pytest.mark.parametrize("field", ["kind", "frame", "reference", "rotation", "gripper"])
def test_unknown_matches_nothing_unless_it_is_accepted(field: str) -> None:
    vague: ActionSpec = replace(ACTION, **{field: "unknown"})
    with running(Engine(FakePolicy(action=vague)), ANY_PORT) as address:
        with pytest.raises(SpecError, match=f"action {field}: 'unknown' against"):
            SteeringClient(address, ROBOT)
        SteeringClient(address, ROBOT, accept_unknown=True).close()


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (replace(STATE, name="joints"), "observation 'state' is wanted, but only"),
        (replace(STATE, dtype="float64"), "dtype float32 is wanted, float64 is given"),
        (ArraySpec("state", "float32", (4,)), "shape .3,. is wanted, .4,. is given"),
        (replace(STATE, names=("ee.y", "ee.x", "ee.z")), "entries .* are wanted"),
    ],
)
def test_a_robot_that_sees_other_things_is_refused(address: str, array: ArraySpec, reason: str) -> None:
    robot: RobotSpec = replace(ROBOT, observation=ObservationSpec((array,)))
    with pytest.raises(SpecError, match=reason):
        SteeringClient(address, robot)


def test_what_the_policy_cannot_do_is_refused_when_the_session_begins() -> None:
    execution = wire.Execution(num_samples=8)
    with (
        running(Engine(FakePolicy(stochastic=False)), ANY_PORT) as address,
        pytest.raises(UnsupportedError, match="deterministic policy"),
    ):
        SteeringClient(address, ROBOT, execution=execution)


def test_a_prefix_that_the_critic_was_not_trained_for_is_refused(client: SteeringClient) -> None:
    with pytest.raises(UnsupportedError, match=r"trained to score \[4\] steps, 2 would be executed"):
        client.infer(request(execute=2))


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (np.zeros((2, 4), np.float32), r"state: got shape \(2, 4\)"),
        (np.zeros((3, 3), np.float32), "state: got 3 frames"),
        (np.zeros((2, 3), np.float64), "state: got dtype float64"),
        (np.array([[0, 0, 0], [0, np.nan, 0]], np.float32), r"state: ee\.y = nan is not finite"),
    ],
)
def test_bad_states_are_refused_on_both_sides(address: str, state: np.ndarray, reason: str) -> None:
    client = SteeringClient(address, ROBOT)
    observation = Observation({"state": state}, np.ones(2, np.bool_))
    with pytest.raises(SpecError, match=reason):
        client.infer(Request(observation))
    assert client.infer(request()).chosen >= 0  # the session is as good as before
    raw = steering_pb2.InferRequest(session=client.opened.session, chunk=1000)
    for key, value in SentWindow().tell(raw.history, observation).items():
        raw.history.frames[key].CopyFrom(wire.tensor_to_message(value, key))
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as caught:
        steering_pb2_grpc.SteeringStub(channel).Infer(raw, timeout=10)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert dict(caught.value.trailing_metadata())[wire.ERROR_KEY] == "SpecError"
    client.close()


def test_a_request_over_the_size_limit_says_so_on_both_sides() -> None:
    wide = ArraySpec("state", "float32", (100_000,))
    robot = replace(ROBOT, observation=ObservationSpec((wide,)))
    policy = FakePolicy(observation=ObservationSpec((wide,)))
    big = Request(Observation.single({"state": np.zeros(100_000, np.float32)}))
    config = replace(ANY_PORT, max_message_bytes=2**16, warm_samples=1)
    with running(Engine(NoModel(policy)), config) as address:
        client = SteeringClient(address, robot)
        with pytest.raises(
            SpecError, match=rf"the request has 400\d\d\d bytes and the server at {address} takes 65536"
        ):
            client.infer(big)
        client._opened = replace(client.opened, max_message_bytes=2**30)  # a client that does not look
        with pytest.raises(SpecError, match=r"over its size limit .*larger than max"):
            client.infer(big)
        client.close()


class NoModel(FakePolicy):
    """Like another policy, but looks at nothing."""

    def __init__(self, like: FakePolicy) -> None:
        super().__init__()
        self.spec = like.spec

    def encode(self, observations: Any) -> np.ndarray:
        return np.zeros((len(observations), 3), np.float32)


def test_a_server_that_is_not_there_names_the_address_and_the_command() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UnavailableError, match=rf"no server at {address} [\s\S]*'steer serve --policy"):
            SteeringClient(address, ROBOT)


def test_a_port_that_is_taken_says_what_to_do(address: str) -> None:
    with pytest.raises(UnavailableError, match=rf"cannot listen on {address}: another program has the port"):
        asyncio.run(_start(ServerConfig(address=address)))


@pytest.mark.parametrize("address", ["localhost", ":50051", "host:port"])
def test_an_address_without_a_port_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="expected host:port"):
        asyncio.run(_start(ServerConfig(address=address)))


async def _start(config: ServerConfig) -> None:
    await SteeringServer(engine(), config).start()


def test_a_session_that_ended_is_opened_again(address: str) -> None:
    client = SteeringClient(address, ROBOT)
    client.infer(request(0))
    client._opened = replace(client.opened, session="gone")
    assert same(client.infer(request(1)), engine().decide([request(1)])[0])
    assert client.opened.session != "gone"
    client.close()


def test_a_new_run_with_the_same_client_begins_a_new_session(address: str) -> None:
    client = SteeringClient(address, ROBOT)
    client.locate(3, 70)
    client.infer(request(0))
    first = client.opened.session
    client.locate(1, 0)
    assert same(client.infer(request(1)), engine().decide([request(1)])[0])
    assert client.opened.session != first
    client.close()


def test_a_server_that_comes_back_is_found_again() -> None:
    with running(engine(), ANY_PORT) as address:
        client = SteeringClient(address, ROBOT)
        client.infer(request())
    with pytest.raises(UnavailableError, match=address):
        client.infer(request())
    with running(engine(), replace(ANY_PORT, address=address)):
        grpc.channel_ready_future(client._channel).result(timeout=10)
        decision = client.infer(request())
    assert same(decision, engine().decide([request()])[0])
    client.close()


def test_the_time_out_of_the_client_is_a_deadline_error(address: str) -> None:
    client = SteeringClient(address, ROBOT)
    client._timeout_s = -1.0  # already over, so that no server is quick enough
    with pytest.raises(DeadlineError, match=f"the server at {address} did not answer within -1 s"):
        client.infer(request())
    client._timeout_s = 10.0
    assert same(client.infer(request()), engine().decide([request()])[0])  # the window was sent whole again
    client.close()


def test_the_budget_travels_and_a_request_that_is_too_late_is_answered(address: str) -> None:
    client = SteeringClient(address, ROBOT, budget_s=1e-9)
    with pytest.raises(DeadlineError, match="the deadline passed after"):
        client.infer(request())
    client.close()


def test_a_closed_client_says_so(address: str) -> None:
    client = SteeringClient(address, ROBOT)
    client.close()
    with pytest.raises(UnavailableError, match="was closed by this process"):
        client.infer(request())


class Confused(steering_pb2_grpc.SteeringServicer):
    """Answers to another chunk."""

    def Open(self, request: Any, context: Any) -> steering_pb2.OpenResponse:
        spec = wire.observation_spec_to_message(ObservationSpec((STATE,), 2))
        return steering_pb2.OpenResponse(session="s", observation=spec, horizon=4, max_message_bytes=2**20)

    def Infer(self, request: Any, context: Any) -> steering_pb2.InferResponse:
        decision = wire.decision_to_message(engine().decide([Request(_observation())])[0])
        return steering_pb2.InferResponse(session="s", chunk=request.chunk + 1, decision=decision)


def _observation() -> Observation:
    return Observation({"state": np.zeros((2, 3), np.float32)}, np.ones(2, np.bool_))


@contextmanager
def serving(servicer: steering_pb2_grpc.SteeringServicer) -> Iterator[str]:
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        steering_pb2_grpc.add_SteeringServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(0).wait()


def test_an_answer_to_another_question_is_never_handed_out() -> None:
    with serving(Confused()) as address:
        client = SteeringClient(address, ROBOT)
        with pytest.raises(SessionError, match="it was dropped"):
            client.infer(request())
        client.close()


class Broken(Engine):
    """Fails with something that is nobody's business outside."""

    def decide(self, requests: Sequence[Request]) -> list[Decision]:
        if requests[0].seed == 1:
            raise RuntimeError("/home/me/secret.py line 3")
        return super().decide(requests)


def test_internals_stay_in_the_log() -> None:
    with running(Broken(FakePolicy(), FakeCritic()), ANY_PORT) as address:
        client = SteeringClient(address, ROBOT)
        with pytest.raises(SteerError, match=r"^internal error [0-9a-f]{8} in the server: its log says more$"):
            client.infer(request(1))
        assert client.infer(request(2)).chosen >= 0
        client.close()


def test_health_says_serving(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", SERVICE):
            reply = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
            assert reply.status == health_pb2.HealthCheckResponse.SERVING


def test_metrics_are_published() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with running(engine(), replace(ANY_PORT, metrics_port=port)) as address:
        client = SteeringClient(address, ROBOT)
        client.infer(request())
        page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
        client.close()
    assert 'steer_requests_total{call="Infer",status="OK"} 1.0' in page


def test_many_clients_at_once_each_get_their_own_answer(address: str) -> None:
    def ask(number: int) -> bool:
        client = SteeringClient(address, ROBOT)
        try:
            alone = engine()
            for seed in range(number, number + 20):
                decision, expected = client.infer(request(seed)), alone.decide([request(seed)])[0]
                np.testing.assert_allclose(decision.candidates, expected.candidates, atol=1e-6)
            return True
        finally:
            client.close()

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(ask, range(0, 600, 100)))
