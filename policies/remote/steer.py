"""`SteerPolicy`: the policy of another Steer, over gRPC. Its critic, if it has one, is not asked: the critic here chooses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float, Int

from policies.remote.options import SteerOptions
from policies.remote.pool import Pool
from steer.client.describe import Described, describe
from steer.client.steering_client import SteeringClient
from steer.decision import Decision, Request
from steer.errors import SpecError
from steer.observation import Batch, Observation, Task
from steer.policy import PolicySpec
from steer.robot import RobotSpec
from steer.selection import Selection
from steer.spec import Array
from steer.wire import Execution

_PROPOSE = Execution(selection=Selection(choose="first"))


@dataclass(frozen=True)
class _Context:
    """The rows of a batch as observations of their own: the far side encodes."""

    observations: tuple[Observation, ...]
    tasks: tuple[Task, ...]


class SteerPolicy:
    """See the module. A call per row of the batch brings all K candidates of it."""

    def __init__(self, described: Described, pool: Pool[SteeringClient], address: str) -> None:
        self._described = described
        self._pool = pool
        self._address = address

    @classmethod
    def connect(cls, options: SteerOptions) -> SteerPolicy:
        """Ask the server what its policy is."""
        described = describe(options.address, options.timeout_s)
        return cls(described, Pool(partial(_open, options, described.spec), options.connections), options.address)

    @property
    def spec(self) -> PolicySpec:
        return self._described.spec

    @property
    def version(self) -> str:
        return self._described.version

    def encode(self, observations: Batch) -> _Context:
        """Check the batch; the rest happens on the far side."""
        self.spec.observation.validate_batch(observations)
        rows = range(len(observations))
        arrays = [{key: observations.arrays[key][row] for key in self.spec.observation.keys} for row in rows]
        tasks = observations.tasks or (Task(),) * len(observations)
        return _Context(tuple(Observation(arrays[row], observations.mask[row]) for row in rows), tasks)

    def sample(
        self,
        context: _Context,
        num_samples: int,
        seeds: Int[np.ndarray, " b"],
        temperature: float = 1.0,
        committed: Float[np.ndarray, "b d a"] | None = None,
    ) -> Float[np.ndarray, "b k h a"]:
        """K chunks per observation, exactly those that the far side would choose from."""
        self.spec.check_request(num_samples, temperature, 0 if committed is None else committed.shape[1])
        calls: list[Callable[[SteeringClient], Array]] = []
        for row, (observation, task) in enumerate(zip(context.observations, context.tasks, strict=True)):
            request = Request(
                observation=observation,
                task=task,
                seed=int(seeds[row]),
                num_samples=num_samples,
                temperature=temperature,
                committed=None if committed is None else committed[row],
                selection=_PROPOSE.selection,
            )
            calls.append(partial(self._candidates, request))
        return np.stack(self._pool.map(calls))

    def close(self) -> None:
        """Let go of the connections."""
        self._pool.close()

    def _candidates(self, request: Request, client: SteeringClient) -> Array:
        decision = client.infer(request)
        self._check(decision, request.num_samples)
        return decision.candidates

    def _check(self, decision: Decision, num_samples: int) -> None:
        if decision.policy_version != self.version:
            raise SpecError(
                f"grpc://{self._address} serves the policy {decision.policy_version!r}, before it was {self.version!r}: "
                "load the policy again"
            )
        expected = (num_samples, self.spec.horizon, self.spec.action.size)
        if decision.candidates.shape != expected:
            raise SpecError(
                f"grpc://{self._address}: got candidates of shape {decision.candidates.shape} ({decision.dropped} were not "
                f"finite, cuts: {list(decision.cuts)}), expected (K, H, A) = {expected}"
            )


def _open(options: SteerOptions, spec: PolicySpec) -> SteeringClient:
    """A session as a robot that is all this policy wants; whether the real one is, is checked on this side."""
    robot = RobotSpec("another Steer", spec.action, spec.observation, hold="repeat")
    return SteeringClient(options.address, robot, execution=_PROPOSE, timeout_s=options.timeout_s, accept_unknown=True)
