from dataclasses import replace
from typing import TypeAlias

import numpy as np
import pytest

from policies.gaussian.config import GaussianConfig
from policies.sampling import ChunkPolicy
from steer.errors import ConfigError
from steer.observation import Batch
from steer.spec import Array
from tests.policies import toys

Trained: TypeAlias = tuple[str, ChunkPolicy]
NOISY = np.array([[0.0, 0.0, 0.0, 1.0]], np.float32)
QUIET = np.array([[0.0, 0.0, 0.0, -1.0]], np.float32)


@pytest.fixture(scope="module", params=["state", "constant"])
def policy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """It saw actions around .03, some of whose second entry is spread out, where the state's last entry is 1."""
    rng = np.random.default_rng(0)
    side = rng.choice([-1.0, 1.0], 100).repeat(10)
    state = np.concatenate([np.zeros((1000, 3)), side[:, None]], axis=1).astype(np.float32)
    std = np.stack([np.full(1000, 0.01), np.where(side > 0, 0.3, 0.03)], axis=1)
    data = toys.frames(np.array([0.03, 0.2]) + std * rng.normal(size=(1000, 2)), {"state": state})
    config = replace(toys.SMALL_GAUSSIAN, std=request.param, steps=500, learning_rate=3e-3)
    return request.param, toys.saved(toys.trained(config, data), tmp_path_factory.mktemp("gaussian") / "p")


def sample(policy: ChunkPolicy, state: Array, count: int = 400, temperature: float = 1.0) -> Array:
    return policy.sample(
        policy.encode(Batch({"state": state[None]}, np.ones((1, 1), np.bool_))), count, np.array([1]), temperature
    )


def test_mean_and_spread_are_those_of_the_data(policy: Trained) -> None:
    kind, made = policy
    noisy, quiet = (sample(made, state)[0, 1:, 0] for state in (NOISY, QUIET))

    np.testing.assert_allclose(noisy.mean(axis=0), [0.03, 0.2], atol=0.05)
    np.testing.assert_allclose(quiet.mean(axis=0), [0.03, 0.2], atol=0.05)
    if kind == "state":
        np.testing.assert_allclose([noisy[:, 1].std(), quiet[:, 1].std()], [0.3, 0.03], rtol=0.35)
    else:
        np.testing.assert_allclose(noisy[:, 1].std(), quiet[:, 1].std(), rtol=1e-3)
        assert 0.05 < noisy[:, 1].std() < 0.35


def test_candidate_0_is_the_mean_whatever_seed_and_temperature(policy: Trained) -> None:
    _, made = policy
    greedy = sample(made, QUIET, 1, temperature=0.0)

    np.testing.assert_array_equal(sample(made, QUIET, 1), greedy)
    np.testing.assert_allclose(sample(made, QUIET, 5, temperature=0.5)[:, :1], greedy, atol=1e-6)


def test_temperature_scales_the_distance_from_the_mean(policy: Trained) -> None:
    _, made = policy
    whole, half = sample(made, QUIET, 8), sample(made, QUIET, 8, temperature=0.5)

    inside = np.abs(whole) < np.float32([0.1, 1.0])
    np.testing.assert_allclose((half - half[:, :1])[inside], 0.5 * (whole - whole[:, :1])[inside], atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"min_std": 0.0}, "min_std is 0.0, expected more than 0"), ({"beta": 2.0}, "beta is 2.0, expected 0 to 1")],
)
def test_a_configuration_that_cannot_work_is_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(GaussianConfig(), **changes)  # type: ignore[arg-type]  # wrong on purpose
