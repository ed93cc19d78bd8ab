"""The gRPC service `Steering`: messages in, messages out, errors as statuses. What it asks is done by sessions and batcher."""

from __future__ import annotations

import time
from dataclasses import replace

import structlog

from steer import wire
from steer.critic import Critic
from steer.decision import Decision, Request
from steer.errors import UnsupportedError
from steer.server.answer import Context, answer
from steer.server.batcher import Batcher
from steer.server.metrics import Metrics
from steer.server.residents import Residents
from steer.server.sessions import Session, Sessions
from steer.steering import check_compatible
from steer.v1 import steering_pb2, steering_pb2_grpc
from steer.wire import Execution

_log = structlog.get_logger(__name__)


class SteeringService(steering_pb2_grpc.SteeringServicer):
    """See the module."""

    def __init__(
        self,
        residents: Residents,
        batcher: Batcher,
        sessions: Sessions,
        metrics: Metrics,
        *,
        max_message_bytes: int,
        may_steer: bool | None = None,
    ) -> None:
        self._residents = residents
        self._batcher = batcher
        self._sessions = sessions
        self._metrics = metrics
        self._max_message_bytes = max_message_bytes
        self._may_steer = may_steer

    async def Describe(self, request: steering_pb2.DescribeRequest, context: Context) -> steering_pb2.DescribeResponse:
        return await answer("Describe", context, self._metrics, self._describe)

    async def Open(self, request: steering_pb2.OpenRequest, context: Context) -> steering_pb2.OpenResponse:
        return await answer("Open", context, self._metrics, lambda: self._open(request))

    async def Infer(self, request: steering_pb2.InferRequest, context: Context) -> steering_pb2.InferResponse:
        return await answer("Infer", context, self._metrics, lambda: self._infer(request))

    async def Rerank(self, request: steering_pb2.RerankRequest, context: Context) -> steering_pb2.InferResponse:
        return await answer("Rerank", context, self._metrics, lambda: self._rerank(request))

    async def _describe(self) -> steering_pb2.DescribeResponse:
        engine = self._residents.engine
        policy = engine.policy
        return steering_pb2.DescribeResponse(
            observation=wire.observation_spec_to_message(engine.observation),
            policy=None if policy is None else wire.policy_to_message(policy.spec, policy.version),
        )

    async def _open(self, message: steering_pb2.OpenRequest) -> steering_pb2.OpenResponse:
        robot = wire.robot_spec_from_message(message.robot)
        execution = wire.execution_from_message(message.execution) if message.HasField("execution") else Execution()
        engine = self._residents.engine
        policy, critic = engine.policy, engine.critic
        check_compatible(
            robot,
            None if policy is None else policy.spec,
            None if critic is None else critic.spec,
            message.accept_unknown,
        )
        if policy is not None:
            policy.spec.check_request(execution.num_samples, execution.temperature, committed=0)
        session = self._sessions.open(robot.name, execution, engine.observation)
        self._metrics.sessions.set(len(self._sessions))
        _log.info("session opened", session=session.id, robot=robot.name, samples=execution.num_samples)
        return steering_pb2.OpenResponse(
            session=session.id,
            observation=wire.observation_spec_to_message(engine.observation),
            horizon=engine.horizon,
            policy_version="" if policy is None else policy.version,
            critic=None if critic is None else self._critic_info(critic),
            max_message_bytes=self._max_message_bytes,
            idle_timeout_s=self._sessions.idle_timeout_s,
        )

    def _critic_info(self, critic: Critic) -> steering_pb2.CriticInfo:
        spec = critic.spec
        return steering_pb2.CriticInfo(
            version=critic.version,
            prefixes=spec.prefixes if spec.scores == "executed" else (),
            scores=spec.scores,
            members=spec.members,
            may_steer=self._may_steer,
            gamma=spec.gamma,
        )

    async def _infer(self, message: steering_pb2.InferRequest) -> steering_pb2.InferResponse:
        session = self._sessions.get(message.session)
        request = session.request(message)
        if self._residents.engine.policy is None:
            raise UnsupportedError("this server has no policy: bring candidates and call Rerank")
        return await self._decided(session, message, request, rerank=False)

    async def _rerank(self, message: steering_pb2.RerankRequest) -> steering_pb2.InferResponse:
        session = self._sessions.get(message.infer.session)
        candidates = wire.floats(wire.tensor_from_message(message.candidates, "candidates"), "candidates", 3)
        request = replace(session.request(message.infer), candidates=candidates, num_samples=max(1, len(candidates)))
        return await self._decided(session, message.infer, request, rerank=True)

    async def _decided(
        self, session: Session, message: steering_pb2.InferRequest, request: Request, rerank: bool
    ) -> steering_pb2.InferResponse:
        start = time.perf_counter()
        with self._residents.deciding(session.pin, message.episode) as engine:
            decision: Decision = await self._batcher.submit(engine, request, message.budget_s, rerank)
        timings = {**decision.timings_s, "server": time.perf_counter() - start}
        return steering_pb2.InferResponse(
            session=message.session,
            episode=message.episode,
            step=message.step,
            chunk=message.chunk,
            decision=wire.decision_to_message(replace(decision, timings_s=timings), message.omit_candidates),
        )
