"""`describe`: what the policy of a server is, for somebody who has no robot yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import grpc

from steer import wire
from steer.client.steering_client import channel_options, error_of
from steer.errors import UnsupportedError
from steer.policy import PolicySpec
from steer.v1 import steering_pb2, steering_pb2_grpc


@dataclass(frozen=True)
class Described:
    """A server's policy. The spec's observation is what every request has to bring, also what a critic wants."""

    spec: PolicySpec
    version: str


def describe(address: str, timeout_s: float = 10.0) -> Described:
    """Ask the server at `address`; raises `UnsupportedError` when it has no policy."""
    with grpc.insecure_channel(address, options=channel_options()) as channel:
        try:
            stub = steering_pb2_grpc.SteeringStub(channel)
            reply = stub.Describe(steering_pb2.DescribeRequest(), timeout=timeout_s)
        except grpc.RpcError as error:
            raise error_of(cast(grpc.Call, error), address, timeout_s) from None
    if not reply.HasField("policy"):
        raise UnsupportedError(f"the server at {address} has no policy, only a critic: name one that serves a policy")
    observation = wire.observation_spec_from_message(reply.observation)
    return Described(wire.policy_from_message(reply.policy, observation), reply.policy.version)
