"""The gRPC service `Experience`: segments of robots' stores, into the store of the machine that learns.

Messages in, messages out; what they ask is done by `steer.server.incoming` on one thread of its own, one request at a time,
so that the disk never holds up the event loop on which robots wait for their actions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from steer import wire
from steer.data.origin import SegmentId
from steer.data.parcel import SegmentFile
from steer.errors import SpecError
from steer.server.answer import Context, answer
from steer.server.incoming import GivenLabel, Incoming
from steer.server.metrics import Metrics
from steer.v1 import experience_pb2, experience_pb2_grpc

_Reply = TypeVar("_Reply")

MAX_WRITE_BYTES = 1 << 20


class ExperienceService(experience_pb2_grpc.ExperienceServicer):
    """See the module."""

    def __init__(self, incoming: Incoming, metrics: Metrics, max_message_bytes: int = wire.MAX_MESSAGE_BYTES) -> None:
        """max_message_bytes: what the server takes, of which one write uses at most half."""
        self._incoming = incoming
        self._metrics = metrics
        self._max_write_bytes = min(MAX_WRITE_BYTES, max_message_bytes // 2)
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="experience")

    async def close(self) -> None:
        """Finish what was asked and let go of the store."""
        await self._run(self._incoming.close)
        self._disk.shutdown()

    async def Join(self, request: experience_pb2.JoinRequest, context: Context) -> experience_pb2.JoinResponse:
        return await self._answer("Join", context, lambda: self._join(request))

    async def Offer(self, request: experience_pb2.OfferRequest, context: Context) -> experience_pb2.OfferResponse:
        return await self._answer("Offer", context, lambda: self._offer(request))

    async def Write(self, request: experience_pb2.WriteRequest, context: Context) -> experience_pb2.WriteResponse:
        return await self._answer("Write", context, lambda: self._write(request))

    async def Publish(self, request: experience_pb2.PublishRequest, context: Context) -> experience_pb2.PublishResponse:
        return await self._answer("Publish", context, lambda: self._publish(request))

    async def Label(self, request: experience_pb2.LabelRequest, context: Context) -> experience_pb2.LabelResponse:
        return await self._answer("Label", context, lambda: self._label(request))

    def _join(self, message: experience_pb2.JoinRequest) -> experience_pb2.JoinResponse:
        identity = self._incoming.join(wire.robot_spec_from_message(message.robot), message.store)
        return experience_pb2.JoinResponse(
            store=identity,
            max_segment_bytes=self._incoming.max_segment_bytes,
            max_write_bytes=self._max_write_bytes,
        )

    def _offer(self, message: experience_pb2.OfferRequest) -> experience_pb2.OfferResponse:
        files = [SegmentFile(file.path, file.bytes, file.sha256) for file in message.files]
        robot = wire.robot_spec_from_message(message.robot)
        offered = self._incoming.offer(robot, _segment(message.id), files)
        return experience_pb2.OfferResponse(published=offered.published, held=offered.held)

    def _write(self, message: experience_pb2.WriteRequest) -> experience_pb2.WriteResponse:
        if message.ByteSize() > 2 * self._max_write_bytes:
            raise SpecError(f"{message.ByteSize()} bytes in one write, at most {self._max_write_bytes} are taken")
        self._incoming.write(_segment(message.id), ((part.path, part.offset, part.data) for part in message.parts))
        return experience_pb2.WriteResponse()

    def _publish(self, message: experience_pb2.PublishRequest) -> experience_pb2.PublishResponse:
        return experience_pb2.PublishResponse(published=self._incoming.publish(_segment(message.id)))

    def _label(self, message: experience_pb2.LabelRequest) -> experience_pb2.LabelResponse:
        self._incoming.label(
            GivenLabel(_segment(label.id), label.index, label.success, label.source) for label in message.labels
        )
        return experience_pb2.LabelResponse()

    async def _run(self, work: Callable[[], _Reply]) -> _Reply:
        return await asyncio.get_running_loop().run_in_executor(self._disk, work)

    async def _answer(self, call: str, context: Context, work: Callable[[], _Reply]) -> _Reply:
        return await answer(call, context, self._metrics, lambda: self._run(work))


def _segment(message: experience_pb2.SegmentId) -> SegmentId:
    return SegmentId(message.store, message.segment)
