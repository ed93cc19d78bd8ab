"""`OpenpiPolicy`: candidates from an openpi server.

A stock server returns one chunk per call and takes no seed: K candidates are K concurrent calls, candidate 0 the first of
them, and nothing can be repeated (`seeding` "none"). A Steer behind the same wire says in its metadata that it can do more:
then K candidates come from one call, with seed and temperature, over the whole window of history.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from policies.remote.options import OpenpiOptions
from policies.remote.pool import Pool
from policies.remote.websocket import OpenpiConnection
from steer.errors import ConfigError, SpecError, UnsupportedError
from steer.observation import Batch, ObservationSpec, Task
from steer.openpi import codec
from steer.openpi.keys import KeyMap, nested
from steer.openpi.protocol import Far
from steer.policy import PolicySpec
from steer.robot import read_robot
from steer.spec import Array


@dataclass(frozen=True)
class _Context:
    """The requests of a batch, one per row, as maps under the server's names."""

    requests: tuple[dict[str, Any], ...]


class OpenpiPolicy:
    """See the module. Holds connections, no weights."""

    def __init__(
        self, spec: PolicySpec, version: str, pool: Pool[OpenpiConnection], options: OpenpiOptions, far: Far
    ) -> None:
        self.spec = spec
        self.version = version
        self._pool = pool
        self._options = options
        self._far = far

    @classmethod
    def connect(cls, options: OpenpiOptions) -> OpenpiPolicy:
        """Ask the server what it is, and complete that by what the name says."""
        first = OpenpiConnection(options)
        far = first.far
        first.close()
        spec = _steer_spec(far, options) if far.is_steer else _stock_spec(far, options)
        name = far.metadata.get("name")
        version = far.version or f"{options.address}{f' {name}' if isinstance(name, str) else ''}"
        return cls(spec, version, Pool(partial(_reconnect, options, far), options.connections), options, far)

    def encode(self, observations: Batch) -> _Context:
        """Check the batch and give it the server's names."""
        self.spec.observation.validate_batch(observations)
        return _Context(tuple(self._request(observations, row) for row in range(len(observations))))

    def sample(
        self,
        context: _Context,
        num_samples: int,
        seeds: Int[np.ndarray, " b"],
        temperature: float = 1.0,
        committed: Float[np.ndarray, "b d a"] | None = None,
    ) -> Float[np.ndarray, "b k h a"]:
        """K chunks per observation; see the module for how. Committed actions are not sent, as no server inpaints."""
        self.spec.check_request(num_samples, temperature, committed=0)
        if self._far.is_steer:
            return self._in_one_call(context, num_samples, seeds, temperature)
        calls: list[Callable[[OpenpiConnection], Array]] = []
        for request in context.requests:
            packed = codec.pack(request)
            calls += [partial(self._chunks, packed, "actions", ())] * num_samples
        chunks = np.stack(self._pool.map(calls))
        return chunks.reshape(len(context.requests), num_samples, *chunks.shape[1:])

    def close(self) -> None:
        """Let go of the connections."""
        self._pool.close()

    def _in_one_call(
        self, context: _Context, num_samples: int, seeds: Int[np.ndarray, " b"], temperature: float
    ) -> Float[np.ndarray, "b k h a"]:
        calls: list[Callable[[OpenpiConnection], Array]] = []
        for request, seed in zip(context.requests, seeds, strict=True):
            asked = {"num_samples": num_samples, "seed": int(seed), "temperature": float(temperature)}
            packed = codec.pack(request | asked)
            calls.append(partial(self._chunks, packed, "candidates", (num_samples,)))
        return np.stack(self._pool.map(calls))

    def _request(self, batch: Batch, row: int) -> dict[str, Any]:
        """One row: its newest frame for a stock server, the whole window for a Steer."""
        keys = self._options.keys
        frames = {keys.their(name): self._sent(batch.arrays[name][row]) for name in self.spec.observation.keys}
        message = nested(frames)
        if self._far.is_steer:
            message["mask"] = batch.mask[row]
        return message | self._prompt(batch.tasks[row] if batch.tasks else Task())

    def _sent(self, value: Array) -> Array:
        if self._options.channels_first and value.dtype == np.uint8 and value.ndim == 4:
            value = np.moveaxis(value, -1, 1)
        return value if self._far.is_steer else value[-1]

    def _prompt(self, task: Task) -> dict[str, str]:
        if task.goal_image is not None:
            raise UnsupportedError("a goal image was given, but the openpi wire has none: give an instruction")
        # Without one, a stock server takes its default.
        return {"prompt": task.instruction} if task.instruction else {}

    def _chunks(self, packed: bytes, key: str, leading: tuple[int, ...], connection: OpenpiConnection) -> Array:
        """The array `key` of the reply as float32[..., H, A]; raises `SpecError` for anything else."""
        reply = connection.ask(packed)
        value = reply.get(key)
        where = f"{self._options.address}: {key}"
        if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
            what = f"{value.dtype} numbers" if isinstance(value, np.ndarray) else type(value).__name__
            raise SpecError(f"{where}: got {what} in a reply with {sorted(reply)}, expected an array of floats")
        expected = (*leading, self.spec.horizon, self.spec.action.size)
        if value.shape != expected:
            raise SpecError(
                f"{where}: got shape {value.shape}, expected {expected}: check horizon and the robot's axes"
            )
        if not np.isfinite(value).all():
            raise SpecError(f"{where}: holds numbers that are not finite: the server's policy or its input is broken")
        return value.astype(np.float32)


def _reconnect(options: OpenpiOptions, far: Far) -> OpenpiConnection:
    """Another connection to the same policy: a server that was started again with another one is refused."""
    connection = OpenpiConnection(options)
    if codec.pack(connection.far.metadata) != codec.pack(far.metadata):
        connection.close()
        raise SpecError(
            f"{options.address} serves another policy than before (its metadata changed): load the policy again"
        )
    return connection


def _steer_spec(far: Far, options: OpenpiOptions) -> PolicySpec:
    """What a Steer says of itself, under our names."""
    assert far.policy is not None
    if options.robot is not None or options.horizon is not None or options.channels_first:
        raise ConfigError(
            f"{options.address} is a Steer and states its own spec: leave out robot, horizon and channels_first"
        )
    ours = KeyMap({theirs: ours for ours, theirs in options.keys.theirs.items()})
    ours.check(far.policy.observation)
    return replace(far.policy, observation=ours.renamed(far.policy.observation), trainable=False, inpaints=False)


def _stock_spec(far: Far, options: OpenpiOptions) -> PolicySpec:
    """What the sidecar and the name say, since the server does not."""
    if options.robot is None:
        raise ConfigError(
            f"{options.address} does not say which observations it wants and what its actions mean: "
            "describe the robot it was trained for in a sidecar, and give ?robot=SIDECAR.json"
        )
    if far.horizon is None and options.horizon is None:
        raise ConfigError(f"{options.address} does not say how long its chunks are: give horizon=STEPS")
    if None not in (far.horizon, options.horizon) and far.horizon != options.horizon:
        raise ConfigError(f"{options.address} says its chunks have {far.horizon} steps, the name {options.horizon}")
    robot = read_robot(options.robot)
    options.keys.check(robot.observation)
    arrays = tuple(a for a in robot.observation.arrays if not options.keys.theirs or a.name in options.keys.theirs)
    return PolicySpec(
        observation=ObservationSpec(arrays, window=1),
        action=robot.action,
        horizon=options.horizon or far.horizon or 0,
        stochastic=options.stochastic,
        seeding="none",
        temperature=False,
        trainable=False,
    )
