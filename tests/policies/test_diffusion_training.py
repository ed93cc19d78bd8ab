from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from policies.backbones.config import TransformerConfig, UnetConfig
from policies.diffusion.config import DiffusionConfig
from policies.diffusion.objective import DiffusionObjective
from policies.diffusion.policy import DiffusionPolicy
from policies.sampling import ChunkPolicy
from policies.training import rate_factor
from steer.data.sampling import ChunkSampler
from steer.errors import CheckpointError, ConfigError, SpecError
from steer.observation import Batch
from tests.policies import toys


@pytest.fixture(scope="module", params=["diffusion_mlp", "diffusion_unet", "flow_mlp", "flow_transformer"])
def two_ways(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ChunkPolicy:
    """A policy that saw episodes going right or left, by chance."""
    rng = np.random.default_rng(0)
    side = rng.choice([-1.0, 1.0], 60).repeat(10)[:, None]
    data = toys.frames(side * np.array([0.06, 0.6]) + rng.normal(0, 0.002, (600, 2)))
    sizes = {"steps": 400, "hidden": 64, "expansion": 128, "learning_rate": 3e-3}
    config = replace(toys.VARIANTS[request.param], **sizes)
    return toys.saved(toys.trained(config, data), tmp_path_factory.mktemp("two_ways") / "p")


def test_a_choice_between_two_ways_is_sampled_both_ways(two_ways: ChunkPolicy) -> None:
    first_steps = two_ways.sample(two_ways.encode(toys.batch(two_ways)), 64, np.array([1]))[0, :, 0]

    right, left = first_steps[first_steps[:, 0] > 0], first_steps[first_steps[:, 0] < 0]
    assert min(len(right), len(left)) >= 12
    # Not the mean of the two ways, which nobody ever went; both axes of a candidate go the same way.
    np.testing.assert_allclose(np.median(right, axis=0), [0.06, 0.6], rtol=0.15)
    np.testing.assert_allclose(np.median(left, axis=0), [-0.06, -0.6], rtol=0.15)


def test_images_steer_the_actions(tmp_path: Path) -> None:
    config = replace(toys.SMALL, keys=("camera.front",), steps=200, learning_rate=3e-3)
    policy = toys.saved(toys.trained(config, toys.image_frames()), tmp_path / "p")
    images = np.stack([np.zeros((1, 16, 16, 3), np.uint8), np.full((1, 16, 16, 3), 255, np.uint8)])

    got = policy.sample(policy.encode(Batch({"camera.front": images}, np.ones((2, 1), np.bool_))), 8, np.array([1, 2]))

    black, white = got[0, :, 0, 0].mean(), got[1, :, 0, 0].mean()
    assert black < -0.02 < 0.02 < white


def test_what_is_served_is_the_average_of_the_weights(tmp_path: Path) -> None:
    objective = DiffusionObjective(replace(toys.SMALL, ema_decay=0.5), toys.random_frames())
    sampler = ChunkSampler(toys.random_frames(), 4, 1, 64, 0)
    weight = objective.network.denoiser.head.weight
    average = weight.detach().clone()
    for update in range(4):
        objective.step(sampler.sample())
        # (1 + k) / (10 + k), and 0 at the first update.
        decay = 0.0 if update == 0 else min(0.5, (1 + update) / (10 + update))
        average = decay * average + (1 - decay) * weight.detach()

    objective.save(tmp_path / "p")

    served = DiffusionPolicy.load(tmp_path / "p")._network.denoiser.head.weight
    torch.testing.assert_close(served, average)
    assert not torch.allclose(served, weight)


def test_save_and_load_give_the_same_samples(tmp_path: Path) -> None:
    objective = toys.trained(toys.SMALL, toys.random_frames(), steps=5)
    one, two = toys.saved(objective, tmp_path / "a"), toys.saved(objective, tmp_path / "b")

    assert one.version == two.version
    batch = toys.batch(one)
    np.testing.assert_array_equal(
        one.sample(one.encode(batch), 2, np.array([1])), two.sample(two.encode(batch), 2, np.array([1]))
    )


def test_fewer_denoising_steps_are_another_version(tmp_path: Path) -> None:
    trained = toys.saved(toys.trained(toys.SMALL, toys.random_frames(), steps=2), tmp_path / "p")

    quick = DiffusionPolicy.load(tmp_path / "p", inference_steps=4)

    assert quick.version == f"{trained.version}-ddim4"
    assert DiffusionPolicy.load(tmp_path / "p", inference_steps=8).version == trained.version


def test_committed_steps_pull_the_rest_of_the_chunk_along(two_ways: ChunkPolicy) -> None:
    context = two_ways.encode(toys.batch(two_ways))
    right = np.array([[[0.06, 0.6], [0.06, 0.6]]], np.float32)

    got = two_ways.sample(context, 32, np.array([1]), 1.0, right)[0]

    np.testing.assert_array_equal(got[:, :2], np.broadcast_to(right, (32, 2, 2)))
    free = two_ways.sample(context, 32, np.array([1]))[0]
    assert (got[:, 3, 0] > 0).mean() > 0.8 > 0.2 + (free[:, 3, 0] > 0).mean()


def test_the_rate_warms_up_and_falls_to_its_share() -> None:
    config = DiffusionConfig(steps=100, warmup_steps=10, final_rate=0.02)

    assert rate_factor(0, config) == pytest.approx(0.1)
    assert rate_factor(9, config) == rate_factor(10, config) == 1.0
    assert rate_factor(55, config) == pytest.approx(0.51)
    assert rate_factor(100, config) == rate_factor(1000, config) == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"horizon": 0}, "horizon is 0, expected at least 1"),
        ({"keys": ()}, "keys is empty"),
        ({"inference_steps": 60}, "inference_steps 60 is more than"),
        ({"time_features": 3}, "expected an even number"),
        ({"backbone": "unet", "horizon": 5}, "horizon is 5, expected a multiple of 2: 2 unet.channels halve it"),
        ({"backbone": "unet", "unet": UnetConfig(channels=(30,))}, "expected multiples of unet.groups 8"),
        ({"backbone": "unet", "unet": UnetConfig(channels=())}, "expected multiples of unet.groups 8"),
        ({"backbone": "unet", "unet": UnetConfig(kernel=4)}, "unet.kernel is 4, expected an odd number"),
        ({"backbone": "transformer", "transformer": TransformerConfig(heads=5)}, "expected a multiple of 5"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(DiffusionConfig(), **changes)  # type: ignore[arg-type]  # wrong on purpose


def test_a_key_the_robot_does_not_give_is_named() -> None:
    with pytest.raises(SpecError, match="no observation called 'depth'"):
        DiffusionObjective(replace(toys.SMALL, keys=("depth",)), toys.random_frames())


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    objective = toys.trained(toys.SMALL, toys.random_frames(), steps=1)
    objective.config = replace(toys.SMALL, hidden=16)
    objective.save(tmp_path / "p")

    with pytest.raises(CheckpointError, match="has shape"):
        DiffusionPolicy.load(tmp_path / "p")
