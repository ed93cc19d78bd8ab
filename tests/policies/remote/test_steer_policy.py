"""`grpc://` against a Steer in this process: what it says of itself, what travels, what goes wrong."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from steer import registry
from steer.client.describe import describe
from steer.decision import Request
from steer.engine import Engine
from steer.errors import ConfigError, DeadlineError, SpecError, UnavailableError, UnsupportedError
from steer.observation import Batch, Task
from steer.policy import Policy
from steer.server.server import ServerConfig, running
from steer.spec import Array
from tests.fakes import FakeCritic, FakePolicy

ANY_PORT = ServerConfig(address="127.0.0.1:0", warm_samples=2)


class Tasked(FakePolicy):
    """Remembers the tasks it was shown and the committed steps, and may be slow to load."""

    def __init__(self, version: str = "fake-policy-1") -> None:
        super().__init__(inpaints=True)
        self.version = version
        self.tasks: list[Task] = []
        self.committed: list[Array | None] = []

    def encode(self, observations: Batch) -> Array:
        self.tasks += observations.tasks
        return super().encode(observations)

    def sample(
        self, context: Array, num_samples: int, seeds: Array, temperature: float = 1.0, committed: Array | None = None
    ) -> Array:
        self.committed.append(committed)
        return super().sample(context, num_samples, seeds, temperature)


@pytest.fixture(scope="module")
def far() -> Tasked:
    return Tasked()


@pytest.fixture(scope="module")
def address(far: Tasked) -> Iterator[str]:
    with running(Engine(far, FakeCritic()), ANY_PORT) as address:
        yield address


def batch(policy: Policy, rows: int = 1, task: Task | None = None) -> Batch:
    rng = np.random.default_rng(0)
    observations = [policy.spec.observation.generate(rng) for _ in range(rows)]
    return Batch.stack(observations, [task or Task()] * rows)


def test_the_far_policy_says_what_it_is(address: str, far: Tasked) -> None:
    described = describe(address)
    assert described.version == far.version
    assert described.spec.action == far.spec.action
    assert described.spec.observation == far.spec.observation
    assert (described.spec.horizon, described.spec.seeding, described.spec.inpaints) == (4, "request", True)
    assert not described.spec.trainable


def test_candidates_are_those_of_the_far_policy_and_not_of_its_critic(address: str) -> None:
    policy, local = registry.policy(f"grpc://{address}"), FakePolicy()
    observed = batch(policy, rows=3)
    seeds = np.array([7, -8, 2**62])
    got = policy.sample(policy.encode(observed), 8, seeds, 0.5)
    expected = local.sample(local.encode(observed), 8, seeds, 0.5)
    np.testing.assert_array_equal(got, local.spec.action.clip(expected)[0])


def test_task_and_committed_steps_travel(address: str, far: Tasked) -> None:
    policy = registry.policy(f"grpc://{address}")
    task = Task("stack the cubes", np.full((2, 2, 3), 9, np.uint8))
    committed = np.full((1, 2, 3), 0.05, np.float32)
    far.tasks.clear()
    got = policy.sample(policy.encode(batch(policy, task=task)), 4, np.array([1]), 1.0, committed)
    assert far.tasks[-1].instruction == task.instruction
    np.testing.assert_array_equal(far.tasks[-1].goal_image, task.goal_image)
    np.testing.assert_array_equal(far.committed[-1], committed)
    np.testing.assert_array_equal(got[0, :, :2], np.broadcast_to(committed, (4, 2, 3)))


@pytest.mark.parametrize("instruction", ["", "pick up the cube " * 118], ids=["empty", "2000 characters"])
def test_instructions_of_any_length_arrive_whole(address: str, far: Tasked, instruction: str) -> None:
    policy = registry.policy(f"grpc://{address}")
    far.tasks.clear()
    policy.sample(policy.encode(batch(policy, task=Task(instruction))), 1, np.array([1]))
    assert far.tasks[-1].instruction == instruction


def test_an_engine_steers_it_as_it_steers_the_policy_itself(address: str) -> None:
    policy = registry.policy(f"grpc://{address}")
    request = Request(policy.spec.observation.generate(np.random.default_rng(3)), seed=5, num_samples=8)
    remote = Engine(policy, FakeCritic()).decide([request])[0]
    local = Engine(FakePolicy(), FakeCritic()).decide([request])[0]
    assert remote.chosen == local.chosen
    np.testing.assert_array_equal(remote.candidates, local.candidates)


def test_a_server_without_policy_is_refused() -> None:
    far = running(Engine(None, FakeCritic(window=2)), ANY_PORT)
    with far as address, pytest.raises(UnsupportedError, match="has no policy"):
        registry.policy(f"grpc://{address}")


def test_a_far_policy_keeps_its_limits() -> None:
    with running(Engine(FakePolicy(stochastic=False, temperature=False, seeding="none")), ANY_PORT) as address:
        policy = registry.policy(f"grpc://{address}")
        assert (policy.spec.stochastic, policy.spec.temperature, policy.spec.seeding) == (False, False, "none")
        with pytest.raises(UnsupportedError, match="deterministic"):
            policy.sample(policy.encode(batch(policy)), 2, np.array([0]))


def test_a_server_that_is_gone_is_unavailable_and_one_that_comes_back_is_used() -> None:
    with running(Engine(FakePolicy()), ANY_PORT) as address:
        policy = registry.policy(f"grpc://{address}")
        observed = batch(policy)
        before = policy.sample(policy.encode(observed), 4, np.array([1]))
    with pytest.raises(UnavailableError, match=address):
        policy.sample(policy.encode(observed), 4, np.array([1]))
    with running(Engine(FakePolicy()), ServerConfig(address=address, warm_samples=2)):
        np.testing.assert_array_equal(policy.sample(policy.encode(observed), 4, np.array([1])), before)


def test_another_policy_at_the_same_address_is_noticed() -> None:
    with running(Engine(Tasked("first")), ANY_PORT) as address:
        policy = registry.policy(f"grpc://{address}")
        observed = batch(policy)
        policy.sample(policy.encode(observed), 1, np.array([1]))
    second = running(Engine(Tasked("second")), ServerConfig(address=address, warm_samples=2))
    with second, pytest.raises(SpecError, match="'second', before it was 'first'"):
        policy.sample(policy.encode(observed), 1, np.array([1]))


def test_a_candidate_that_the_far_side_dropped_is_an_error() -> None:
    class Spoilt(FakePolicy):
        def sample(self, *given: Array, **more: Array) -> Array:
            chunks = super().sample(*given, **more)
            chunks[:, 1:2] = np.nan
            return chunks

    with running(Engine(Spoilt()), ServerConfig(address="127.0.0.1:0", warm_samples=3)) as address:
        policy = registry.policy(f"grpc://{address}")
        with pytest.raises(SpecError, match="1 were not finite"):
            policy.sample(policy.encode(batch(policy)), 4, np.array([1]))


def test_nobody_there_is_unavailable() -> None:
    with running(Engine(FakePolicy()), ANY_PORT) as address:
        pass
    with pytest.raises((UnavailableError, DeadlineError), match=address):
        registry.policy(f"grpc://{address}?timeout_s=2")


@pytest.mark.parametrize("name", ["grpc://", "grpc://host:port", "grpc://h:70000", "grpc://h?seed=1"])
def test_a_name_that_is_no_address_is_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        registry.policy(name)
