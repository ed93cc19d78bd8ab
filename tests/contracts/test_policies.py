"""The policy contract over our own families: each backbone, from states, a history, and images; small, saved and read back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from policies.sampling import ChunkPolicy
from tests.contracts.policy_contract import PolicyContract, draw, observe
from tests.policies import toys

# One of each family and of each backbone.
SOME = ("diffusion_mlp", "diffusion_unet", "flow_transformer", "gaussian")
CONFIGS = {
    **toys.VARIANTS,
    **{f"{name}_history": replace(toys.VARIANTS[name], window=3) for name in SOME},
    **{f"{name}_images": replace(toys.VARIANTS[name], keys=("state", "camera.front")) for name in SOME},
    "diffusion_unet_h16": replace(toys.VARIANTS["diffusion_unet"], horizon=16),
    "flow_transformer_h16_image_history": replace(
        toys.VARIANTS["flow_transformer"], horizon=16, window=2, keys=("camera.front",)
    ),
}


@pytest.fixture(scope="module", params=CONFIGS)
def policy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ChunkPolicy:
    config = CONFIGS[request.param]
    data = toys.image_frames() if "camera.front" in config.keys else toys.random_frames()
    return toys.saved(toys.trained(config, data, steps=10), tmp_path_factory.mktemp("policy") / "model")


class TestPolicies(PolicyContract):
    def test_one_candidate_is_the_policy_alone(self, policy: ChunkPolicy) -> None:
        batch = observe(policy, 1)
        np.testing.assert_array_equal(draw(policy, batch, 1, [5]), draw(policy, batch, 1, [5]))
        np.testing.assert_allclose(draw(policy, batch, 9, [5])[:, :1], draw(policy, batch, 1, [5]), atol=1e-5)

    def test_the_history_is_seen(self, policy: ChunkPolicy) -> None:
        batch = observe(policy, 1)
        if policy.spec.observation.window == 1:
            return
        older = {key: value.copy() for key, value in batch.arrays.items()}
        for value in older.values():
            value[:, 0] = 0
        changed = draw(policy, replace(batch, arrays=older), 2, [5])
        assert not np.array_equal(changed, draw(policy, batch, 2, [5]))
