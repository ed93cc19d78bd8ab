"""`ExperienceClient`: the calls of the service `Experience`, for segments on this machine's disk.

A segment is sent in writes of at most what the server takes, each read from the disk when it is due, so that memory does not
grow with it. Keeps no account of what was sent and waits for nothing but answers; `steer.client.uploads` does both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import grpc

from steer import wire
from steer.client.steering_client import channel_options, error_of
from steer.data.origin import SegmentId
from steer.data.parcel import SegmentFile
from steer.errors import StoreError, UnavailableError, UnsupportedError
from steer.robot import RobotSpec
from steer.v1 import experience_pb2, experience_pb2_grpc

# A server that publishes reads the segment again and syncs it to a disk that others use as well.
PUBLISH_S = 300.0


@dataclass(frozen=True)
class EpisodeLabel:
    """What somebody said of an episode after it was recorded. index: its place in the segment."""

    segment: SegmentId
    index: int
    success: bool
    source: str


class ExperienceClient:
    """See the module. For one thread; `close` may be called from another and ends the call in progress."""

    def __init__(self, address: str, robot: RobotSpec, timeout_s: float = 30.0) -> None:
        """Nothing is asked yet. timeout_s: longest wait for an answer, other than that to a whole segment."""
        self.address = address
        self._robot = wire.robot_spec_to_message(robot)
        self._timeout_s = timeout_s
        self._max_write_bytes = 0
        self._channel = grpc.insecure_channel(address, options=channel_options())
        self._stub = experience_pb2_grpc.ExperienceStub(self._channel)

    def join(self, identity: str) -> str:
        """Ask to send from the store of this identity; returns that of the server's.

        Raises `SpecError` when the two stores do not fit, `UnsupportedError` when the server takes no episodes.
        """
        try:
            reply = self._call(self._stub.Join, experience_pb2.JoinRequest(robot=self._robot, store=identity))
        except UnsupportedError as error:
            raise UnsupportedError(
                f"the server at {self.address} takes no episodes: start it with --experience STORE"
            ) from error
        self._max_write_bytes = reply.max_write_bytes
        return str(reply.store)

    def send(self, segment: SegmentId, folder: Path, files: Sequence[SegmentFile]) -> str:
        """Send what is missing of a segment; returns its name in the server's store, where it is now published.

        Raises `SpecError` when the server will never take it; anything else may be over when it is sent again.
        """
        listed = [experience_pb2.SegmentFile(path=f.path, bytes=f.size, sha256=f.sha256) for f in files]
        name = experience_pb2.SegmentId(store=segment.store, segment=segment.segment)
        offer = experience_pb2.OfferRequest(robot=self._robot, id=name, files=listed)
        offered = self._call(self._stub.Offer, offer)
        if offered.published:
            return str(offered.published)
        rest = [(file, held) for file, held in zip(files, offered.held, strict=True) if held < file.size]
        for parts in _writes(folder, rest, self._max_write_bytes):
            self._call(self._stub.Write, experience_pb2.WriteRequest(id=name, parts=parts))
        return str(self._call(self._stub.Publish, experience_pb2.PublishRequest(id=name), PUBLISH_S).published)

    def label(self, labels: Iterable[EpisodeLabel]) -> None:
        """Pass on labels of episodes that were sent."""
        messages = [
            experience_pb2.EpisodeLabel(
                id=experience_pb2.SegmentId(store=label.segment.store, segment=label.segment.segment),
                index=label.index,
                success=label.success,
                source=label.source,
            )
            for label in labels
        ]
        self._call(self._stub.Label, experience_pb2.LabelRequest(labels=messages))

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def _call(self, call: Any, message: Any, timeout_s: float = 0.0) -> Any:
        timeout_s = timeout_s or self._timeout_s
        try:
            return call(message, timeout=timeout_s)
        except grpc.RpcError as error:
            raise error_of(cast(grpc.Call, error), self.address, timeout_s) from None
        except ValueError as error:
            raise UnavailableError(f"the connection to {self.address} was closed by this process") from error


def _writes(folder: Path, rest: Iterable[tuple[SegmentFile, int]], most: int) -> Iterator[list[experience_pb2.Part]]:
    """Parts of files, each from where it is to go on, collected to writes of at most so many bytes."""
    parts: list[experience_pb2.Part] = []
    room = most
    for file, held in rest:
        with _open(folder / file.path, held) as stream:
            while held < file.size:
                data = stream.read(min(room, file.size - held))
                if not data:
                    raise StoreError(f"{folder / file.path} ends at {held} of {file.size} bytes: it changed meanwhile")
                parts.append(experience_pb2.Part(path=file.path, offset=held, data=data))
                held += len(data)
                room -= len(data)
                if room <= 0:
                    yield parts
                    parts, room = [], most
    if parts:
        yield parts


def _open(path: Path, offset: int) -> Any:
    try:
        stream = path.open("rb")
        stream.seek(offset)
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error}): restore the segment from a copy") from error
    return stream
