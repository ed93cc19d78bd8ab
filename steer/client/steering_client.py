"""`SteeringClient`: a `Steering` that asks a server over gRPC.

Keeps one session. A server that is not there, or dies, raises `UnavailableError`; the next `infer` opens a new session, so
a caller that tries again gets on as soon as the server is back. A session that the server ended (idle, or restarted in
between) is opened again and logged: the client owns the history, so nothing is lost. Errors of the server come out as the
same classes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import grpc
import structlog
from google.protobuf.message import Message

from steer import wire
from steer.client import framing
from steer.client.window import SentWindow
from steer.decision import Decision, Request
from steer.errors import DeadlineError, SessionError, SpecError, SteerError, UnavailableError, UnsupportedError
from steer.observation import Observation, ObservationSpec
from steer.robot import RobotSpec
from steer.v1 import steering_pb2, steering_pb2_grpc
from steer.wire import Execution

DEFAULT_ADDRESS = "127.0.0.1:50051"
_PLAIN = Execution()
_SERVICE = steering_pb2.DESCRIPTOR.services_by_name["Steering"].full_name
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Opened:
    """What the server said of itself when the session began."""

    session: str
    observation: ObservationSpec
    horizon: int
    policy_version: str
    critic_version: str
    prefixes: tuple[int, ...]
    may_steer: bool | None
    gamma: float | None
    max_message_bytes: int
    idle_timeout_s: float

    @property
    def has_critic(self) -> bool:
        return bool(self.critic_version)


class SteeringClient:
    """See the module. Threads may share one; their requests go one after the other."""

    def __init__(
        self,
        address: str,
        robot: RobotSpec,
        *,
        execution: Execution = _PLAIN,
        timeout_s: float = 10.0,
        budget_s: float = 0.0,
        accept_unknown: bool = False,
        omit_candidates: bool = False,
    ) -> None:
        """Connect and open a session.

        execution: what the server checks at once, and what requests that ask for the same need not repeat.
        timeout_s: longest wait for any answer. budget_s: for how long an answer is of use; the server then proposes fewer
        candidates rather than be late (0: no limit).
        """
        self.address = address
        self._robot = robot
        self._execution = execution
        self._timeout_s = timeout_s
        self._budget_s = budget_s
        self._accept_unknown = accept_unknown
        self._omit_candidates = omit_candidates
        self._lock = threading.Lock()
        self._sent = SentWindow()
        self._chunk = 0
        self._episode = self._step = 0
        self._live = False
        self._channel = grpc.insecure_channel(address, options=channel_options())
        self._stub = steering_pb2_grpc.SteeringStub(self._channel)
        # Like the stub's, but for requests that are bytes already (see `steer.client.framing`).
        self._infer = self._bytes_call("Infer")
        self._rerank = self._bytes_call("Rerank")
        try:
            self._opened = self._open()
        except SteerError:
            self._channel.close()
            raise

    @property
    def opened(self) -> Opened:
        """What the server said when the present session began."""
        return self._opened

    @property
    def observation(self) -> ObservationSpec:
        return self._opened.observation

    @property
    def horizon(self) -> int:
        return self._opened.horizon

    def locate(self, episode: int, step: int) -> None:
        """Episode and control step that the next request belongs to; the server refuses to go back in them.

        Going back here means that a new run begins: it gets a session of its own.
        """
        if (episode, step) < (self._episode, self._step):
            self._live = False
        self._episode, self._step = episode, step

    def infer(self, request: Request) -> Decision:
        """Ask for the next chunk."""
        return self._decide(request, self._infer, framing.INFER, lambda message: message)

    def rerank(self, request: Request) -> Decision:
        """Ask which of `request.candidates` is best."""
        if request.candidates is None:
            raise SpecError("rerank: the request brings no candidates: set Request.candidates to float32[K, H, A]")
        candidates = wire.tensor_to_message(request.candidates, "candidates")
        return self._decide(
            request,
            self._rerank,
            framing.RERANK,
            lambda message: steering_pb2.RerankRequest(infer=message, candidates=candidates),
        )

    def close(self) -> None:
        """Close the connection; the server ends the session when it has been idle."""
        self._live = False
        self._channel.close()

    def _decide(
        self,
        request: Request,
        call: Callable[..., Any],
        path: tuple[int, ...],
        wrap: Callable[[steering_pb2.InferRequest], Message],
    ) -> Decision:
        with self._lock:
            if not self._live:
                self._opened = self._open()
            try:
                return self._ask(request, call, path, wrap)
            except SessionError as error:
                _log.warning("session lost, opening another", address=self.address, reason=str(error))
                self._opened = self._open()
                return self._ask(request, call, path, wrap)

    def _ask(
        self,
        request: Request,
        call: Callable[..., Any],
        path: tuple[int, ...],
        wrap: Callable[[steering_pb2.InferRequest], Message],
    ) -> Decision:
        self._chunk += 1
        observation = self._wanted(request.observation)
        message = self._message(request)
        frames = self._sent.tell(message.history, observation)
        data = framing.with_frames(wrap(message).SerializeToString(), frames, path)
        self._check_size(len(data))
        try:
            answer = self._call(call, data)
        except SteerError:
            self._sent.forget()
            raise
        asked = (self._opened.session, self._episode, self._step, self._chunk)
        if (answer.session, answer.episode, answer.step, answer.chunk) != asked:
            self._sent.forget()
            raise SessionError(
                f"the answer is to session {answer.session!r}, chunk {answer.chunk}, "
                f"not to session {asked[0]!r}, chunk {asked[3]}: it was dropped"
            )
        self._sent.remember(self._chunk, observation)
        return wire.decision_from_message(answer.decision)

    def _message(self, request: Request) -> steering_pb2.InferRequest:
        """All but the history."""
        execution = Execution.of(request)
        same = execution == self._execution
        committed = request.committed
        return steering_pb2.InferRequest(
            session=self._opened.session,
            episode=self._episode,
            step=self._step,
            chunk=self._chunk,
            budget_s=self._budget_s,
            task=wire.task_to_message(request.task),
            committed=None if committed is None else wire.tensor_to_message(committed, "committed"),
            seed=request.seed,
            execution=None if same else wire.execution_to_message(execution),
            omit_candidates=self._omit_candidates,
        )

    def _wanted(self, observation: Observation) -> Observation:
        """Only what the server's models look at; checked here too, so that a mistake never leaves this process."""
        self.observation.validate(observation)
        return replace(observation, arrays={key: observation.arrays[key] for key in self.observation.keys})

    def _check_size(self, size: int) -> None:
        limit = self._opened.max_message_bytes
        if size > limit:
            raise SpecError(
                f"the request has {size} bytes and the server at {self.address} takes {limit}: "
                "send smaller images, or start it with a larger --max-message-bytes"
            )

    def _open(self) -> Opened:
        self._live = False
        self._sent.forget()
        self._chunk = 0
        reply = self._call(
            self._stub.Open,
            steering_pb2.OpenRequest(
                robot=wire.robot_spec_to_message(self._robot),
                execution=wire.execution_to_message(self._execution),
                accept_unknown=self._accept_unknown,
            ),
        )
        critic = reply.critic
        self._live = True
        return Opened(
            session=reply.session,
            observation=wire.observation_spec_from_message(reply.observation),
            horizon=reply.horizon,
            policy_version=reply.policy_version,
            critic_version=critic.version,
            prefixes=tuple(critic.prefixes),
            may_steer=critic.may_steer if critic.HasField("may_steer") else None,
            gamma=critic.gamma or None,
            max_message_bytes=reply.max_message_bytes,
            idle_timeout_s=reply.idle_timeout_s,
        )

    def _bytes_call(self, name: str) -> Callable[..., Any]:
        return self._channel.unary_unary(f"/{_SERVICE}/{name}", None, steering_pb2.InferResponse.FromString)

    def _call(self, call: Callable[..., Any], message: Any) -> Any:
        try:
            return call(message, timeout=self._timeout_s)
        except grpc.RpcError as error:
            raised = error_of(cast(grpc.Call, error), self.address, self._timeout_s)
            if isinstance(raised, UnavailableError):
                self._live = False
            raise raised from None
        except ValueError as error:
            raise UnavailableError(f"the connection to {self.address} was closed by this process") from error


def error_of(error: grpc.Call, address: str, timeout_s: float) -> SteerError:
    """The server's own error as it was raised there, or what the transport's status means here."""
    code, details = error.code(), error.details() or ""
    name = dict(error.trailing_metadata() or ()).get(wire.ERROR_KEY)
    if name is not None:
        return wire.error_from_status(str(name), code.name, details)
    match code:
        case grpc.StatusCode.UNAVAILABLE:
            return UnavailableError(
                f"no server at {address} ({details}): start one with "
                f"'steer serve --policy CHECKPOINT --address {address}'"
            )
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineError(f"the server at {address} did not answer within {timeout_s:g} s")
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return SpecError(f"a message to or from {address} is over its size limit ({details}): send smaller images")
        case grpc.StatusCode.CANCELLED:
            return UnavailableError(f"the call to {address} was cancelled ({details})")
        case grpc.StatusCode.UNIMPLEMENTED:
            return UnsupportedError(f"{address} is no Steer server, or of another version ({details})")
    return wire.error_from_status("", code.name, details)


def channel_options() -> list[tuple[str, int]]:
    """Of every channel to a server."""
    return [
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        # The default grows to two minutes, during which a server that came back would not be noticed.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        # Despite its name the time that one attempt to connect may take: a busy machine needs more than the backoff.
        ("grpc.min_reconnect_backoff_ms", 2000),
        # A proxy meant for the web must not see a robot's commands.
        ("grpc.enable_http_proxy", 0),
    ]
