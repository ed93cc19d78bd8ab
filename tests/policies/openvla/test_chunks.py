"""The small token policy: what its loss is, what it learns, and what adapters leave alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from policies.config import chunk_sampler
from policies.openvla import load, objective
from policies.openvla.chunk_objective import TokenChunkObjective
from policies.openvla.chunk_policy import TokenChunkPolicy
from steer.checkpoints import read_checkpoint
from steer.data.frames import Frames
from steer.errors import CheckpointError, ConfigError, SpecError
from steer.model_name import ModelName
from steer.observation import Batch, Observation
from steer.spec import Array
from tests.policies.openvla.toys import SMALL, random_frames, saved, trained

CONFIG = replace(SMALL, horizon=2, steps=150, learning_rate=5e-3)


@pytest.fixture(scope="module")
def data() -> Frames:
    return random_frames(400)


@pytest.fixture(scope="module")
def checkpoint(data: Frames, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("token") / "model"
    trained(CONFIG, data).save(path)
    return path


def see(data: Frames, rows: list[int]) -> Batch:
    return Batch.stack([Observation.single({"state": data.observations["state"][row]}) for row in rows])


def greedy(policy: TokenChunkPolicy, data: Frames, rows: list[int]) -> Array:
    return policy.sample(policy.encode(see(data, rows)), 1, np.zeros(len(rows), np.int64))[:, 0]


def test_it_learns_actions_that_depend_on_the_state(data: Frames, checkpoint: Path) -> None:
    rows = list(range(0, 400, 10))
    got = greedy(TokenChunkPolicy.load(checkpoint), data, rows)[:, 0]
    wanted = data.actions[rows]
    assert (np.sign(got[:, 1]) == np.sign(wanted[:, 1])).mean() > 0.85
    assert np.corrcoef(got[:, 0], wanted[:, 0])[0, 1] > 0.8


def test_the_loss_is_that_of_decoding_token_by_token(data: Frames) -> None:
    made = TokenChunkObjective(CONFIG, data)
    batch = chunk_sampler(replace(CONFIG, batch_size=4), data).sample()
    tensors, mask, actions, weights, ids = made.inputs(batch)
    loss, _ = made.network(tensors, mask, actions, weights, ids)
    language_model = made.network.language_model
    tokens = torch.cat([made.network.encoder(tensors, mask), language_model.model.embed_tokens(ids)], dim=1)
    logits = language_model(inputs_embeds=tokens).logits[:, CONFIG.state_tokens - 1 : -1]
    expected = -logits.log_softmax(-1).gather(-1, ids[..., None]).mean()
    torch.testing.assert_close(loss, expected)


def test_committed_steps_move_what_follows(data: Frames, checkpoint: Path) -> None:
    policy = TokenChunkPolicy.load(checkpoint)
    context = policy.encode(see(data, [3]))
    committed = policy.spec.action.high[None, None]
    got = policy.sample(context, 16, np.array([1]), 1.0, committed)
    np.testing.assert_array_equal(got[:, :, 0], np.broadcast_to(committed, (1, 16, 2)))
    with pytest.raises(SpecError, match=r"expected \(B=1, d, A=2\)"):
        policy.sample(context, 1, np.array([1]), 1.0, np.repeat(committed, 2, axis=0))


def test_our_own_folder_loads_by_its_name_and_takes_few_options(checkpoint: Path) -> None:
    policy = load(ModelName.parse(str(checkpoint)))
    assert isinstance(policy, TokenChunkPolicy)
    assert load(ModelName.parse(f"openvla:{checkpoint}?top_k=2")).version != policy.version
    with pytest.raises(ConfigError, match="unnorm_key"):
        load(ModelName.parse(f"openvla:{checkpoint}?unnorm_key=a"))


def test_adapters_change_the_llama_alone_and_are_merged_when_saved(
    data: Frames, checkpoint: Path, tmp_path: Path
) -> None:
    start = read_checkpoint(checkpoint)
    config = replace(CONFIG, lora_rank=2, steps=5)
    made = objective(config, data, start=start)
    sampler = chunk_sampler(config, data)
    for _ in range(config.steps):
        made.step(sampler.sample())
    policy = saved(made, tmp_path / "tuned")
    tuned = read_checkpoint(tmp_path / "tuned").weights
    assert set(tuned) == set(start.weights)
    moved = {name for name, value in tuned.items() if not np.array_equal(value, start.weights[name])}
    assert moved
    assert all("_proj" in name for name in moved)
    assert np.isfinite(greedy(policy, data, [1])).all()


def test_adapters_need_a_model_to_adapt(data: Frames) -> None:
    with pytest.raises(ConfigError, match="give a checkpoint to start from"):
        objective(replace(CONFIG, lora_rank=2), data)


def test_a_checkpoint_of_other_sizes_is_refused(data: Frames, checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="expected"):
        objective(replace(CONFIG, hidden=48), data, start=read_checkpoint(checkpoint))


@pytest.mark.parametrize("change", [{"hidden": 30}, {"bins": 1}, {"image_size": 50}, {"layers": 0}, {"lora_rank": -1}])
def test_settings_that_cannot_be_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        replace(CONFIG, **change)
