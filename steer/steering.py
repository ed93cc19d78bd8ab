"""`Steering`: what a loop or an evaluation asks for actions, in process or over the network, and the check that may refuse it."""

from __future__ import annotations

from typing import Protocol

from steer.critic import CriticSpec
from steer.decision import Decision, Request
from steer.engine import Engine
from steer.errors import SpecError
from steer.observation import ObservationSpec
from steer.policy import PolicySpec
from steer.robot import RobotSpec


class Steering(Protocol):
    """Answers requests of one robot. The engine in process and the gRPC client are both one."""

    @property
    def observation(self) -> ObservationSpec:
        """What a request's observation must hold, with its window."""
        ...

    @property
    def horizon(self) -> int:
        """H of the answers' candidates."""
        ...

    def infer(self, request: Request) -> Decision: ...

    def close(self) -> None: ...


def check_compatible(
    robot: RobotSpec, policy: PolicySpec | None, critic: CriticSpec | None, accept_unknown: bool = False
) -> None:
    """Raise one `SpecError` that lists everything in which robot, policy and critic differ."""
    problems = []
    for name, spec in (("policy", policy), ("critic", critic)):
        if spec is None:
            continue
        problems += [f"{name} against robot: {p}" for p in spec.action.differences(robot.action, accept_unknown)]
        problems += [f"{name}: {p}" for p in spec.observation.differences(robot.observation)]
    if problems:
        raise SpecError(f"robot {robot.name!r} does not fit the models:\n  " + "\n  ".join(problems))


class LocalSteering:
    """The engine in this process, for one robot."""

    def __init__(self, engine: Engine, robot: RobotSpec, accept_unknown: bool = False) -> None:
        self._engine = engine
        policy = None if engine.policy is None else engine.policy.spec
        critic = None if engine.critic is None else engine.critic.spec
        check_compatible(robot, policy, critic, accept_unknown)

    @property
    def observation(self) -> ObservationSpec:
        return self._engine.observation

    @property
    def horizon(self) -> int:
        return self._engine.horizon

    def infer(self, request: Request) -> Decision:
        return self._engine.decide([request])[0]

    def close(self) -> None:
        """Nothing to release."""
