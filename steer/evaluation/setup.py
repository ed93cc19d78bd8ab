"""`Setup`: plain settings from which every worker process builds its own environment and steering.

Contract: picklable and free of models; calling it loads them. In process or through a server, what comes out is a `Steering`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from steer import registry
from steer.environment import Environment
from steer.errors import ConfigError
from steer.robot import RobotSpec
from steer.steering import LocalSteering, Steering

# An evaluation has no control rate to keep: a busy server may take its time.
_ANSWER_S = 60.0


@dataclass(frozen=True)
class Facts:
    """What building tells about the models. Empty or None where a server keeps it to itself."""

    robot: RobotSpec
    policy: str = ""
    critic: str = ""
    gamma: float | None = None
    prefixes: tuple[int, ...] = ()
    verdict: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Bench:
    """One environment and who steers it, ready for rollouts."""

    environment: Environment
    steering: Steering
    facts: Facts

    def close(self) -> None:
        """Release both; the environment even when the steering fails to close."""
        try:
            self.steering.close()
        finally:
            self.environment.close()


@dataclass(frozen=True)
class Setup:
    """Which environment, and which models or which server. `keys` maps our observation key to the environment's."""

    env_id: str
    policy: str = ""
    critic: str = ""
    server: str = ""
    refine: str = ""
    env_options: Mapping[str, Any] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    robot: RobotSpec | None = None
    accept_unknown: bool = False

    def __post_init__(self) -> None:
        if bool(self.policy) == bool(self.server):
            raise ConfigError("give either a policy to evaluate in process or the address of a server that has one")
        if (self.critic or self.refine) and self.server:
            raise ConfigError(
                f"the server at {self.server} brings its own critic and refiner: start it with those that you mean"
            )

    def __call__(self) -> Bench:
        """Load everything. Raises the loaders' `SteerError`s."""
        environment = Environment(self.env_id, self.env_options, self.robot, self.keys)
        try:
            return self._connect(environment) if self.server else self._load(environment)
        except BaseException:
            environment.close()
            raise

    def _load(self, environment: Environment) -> Bench:
        engine = registry.engine(self.policy, self.critic, self.refine)
        steering = LocalSteering(engine, environment.robot, self.accept_unknown)
        policy, critic = engine.policy, engine.critic
        assert policy is not None
        facts = Facts(environment.robot, policy.version)
        if critic is not None:
            prefixes = critic.spec.prefixes if critic.spec.scores == "executed" else ()
            verdict = registry.verdict(self.critic)
            facts = Facts(environment.robot, policy.version, critic.version, critic.spec.gamma, prefixes, verdict)
        return Bench(environment, steering, facts)

    def _connect(self, environment: Environment) -> Bench:
        from steer.client.steering_client import SteeringClient

        steering = SteeringClient(
            self.server, environment.robot, timeout_s=_ANSWER_S, accept_unknown=self.accept_unknown
        )
        opened = steering.opened
        verdict = None if opened.may_steer is None else {"may_steer": opened.may_steer, "reasons": []}
        facts = Facts(
            environment.robot, opened.policy_version, opened.critic_version, opened.gamma, opened.prefixes, verdict
        )
        return Bench(environment, steering, facts)
