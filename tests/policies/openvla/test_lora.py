"""Low-rank adapters: what they may change, and that what is saved is what was trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from policies.config import chunk_sampler
from policies.openvla import objective
from policies.openvla.chunk_objective import TokenChunkObjective
from policies.openvla.chunk_policy import TokenChunkPolicy
from steer.checkpoints import Checkpoint, read_checkpoint
from steer.cli.main import main
from steer.data import Episode, EpisodeStore
from steer.data.frames import Frames, load_frames
from steer.observation import ObservationSpec
from tests.policies.openvla.toys import SMALL
from tests.policies.toys import ROBOT, STATE

CONFIG = replace(SMALL, horizon=2, bins=32, learning_rate=1e-2, ema_decay=0.5)
ADAPTED = replace(CONFIG, lora_rank=2)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lora") / "store"
    rng = np.random.default_rng(0)
    with EpisodeStore.create(path, replace(ROBOT, observation=ObservationSpec((STATE,)))).writer() as writer:
        for _ in range(4):
            state = rng.normal(size=(9, 4)).astype(np.float32)
            actions = np.tile(np.float32([0.08, 1.0]), (8, 1))
            rewards = np.zeros(8, np.float32)
            writer.add(Episode({"state": state}, actions, rewards, True, False, True, success_source="simulator"))
    return path


@pytest.fixture(scope="module")
def data(store: Path) -> Frames:
    return load_frames(EpisodeStore.open(store))


@pytest.fixture(scope="module")
def start(data: Frames, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    path = tmp_path_factory.mktemp("start") / "model"
    objective(CONFIG, data).save(path)
    return read_checkpoint(path)


@pytest.fixture
def adapted(data: Frames, start: Checkpoint) -> TokenChunkObjective:
    made = objective(ADAPTED, data, start=start)
    sampler = chunk_sampler(ADAPTED, data)
    for _ in range(4):
        made.step(sampler.sample())
    return made


def logits(network: torch.nn.Module, made: TokenChunkObjective, data: Frames) -> torch.Tensor:
    tensors, mask, _, _, ids = made.inputs(chunk_sampler(replace(CONFIG, batch_size=4), data).sample())
    observation = network.encoder(tensors, mask)  # type: ignore[operator]  # a module's attributes
    embeds = network.language_model.model.embed_tokens(ids)  # type: ignore[union-attr]
    with torch.inference_mode():
        found: torch.Tensor = network.language_model(  # type: ignore[operator]
            inputs_embeds=torch.cat([observation, embeds], dim=1)
        ).logits
    return found


def test_nothing_but_the_adapters_moves(adapted: TokenChunkObjective, start: Checkpoint) -> None:
    state = adapted.network.state_dict()
    frozen = {name.replace(".base_layer", ""): value for name, value in state.items() if ".lora_" not in name}
    assert set(frozen) == set(start.weights)
    for name, value in frozen.items():
        np.testing.assert_array_equal(value.numpy(), start.weights[name], err_msg=name)
    moved = [name for name, value in state.items() if ".lora_B" in name and value.abs().max() > 0]
    assert len(moved) == 7 * CONFIG.layers
    trained = sum(parameter.numel() for parameter in adapted._trained())
    assert trained < sum(value.size for value in start.weights.values()) / 4


def test_the_saved_folder_gives_the_adapters_logits_without_adapters(
    adapted: TokenChunkObjective, data: Frames, tmp_path: Path
) -> None:
    adapted.save(tmp_path / "tuned")
    merged = TokenChunkPolicy.load(tmp_path / "tuned")._network
    assert not [name for name in merged.state_dict() if "lora" in name]
    adapted.ema.copy_to(adapted._trained())
    torch.testing.assert_close(logits(merged, adapted, data), logits(adapted.network, adapted, data))
    untouched = TokenChunkObjective(CONFIG, data).network
    assert (logits(merged, adapted, data) - logits(untouched, adapted, data)).abs().max() > 1e-3


def test_saving_does_not_change_what_is_trained(adapted: TokenChunkObjective, data: Frames, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in adapted.network.state_dict().items()}
    adapted.save(tmp_path / "tuned")
    for name, value in adapted.network.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_the_command_goes_on_from_a_checkpoint_of_any_sizes(store: Path, start: Checkpoint, tmp_path: Path) -> None:
    flags = ["--start", str(start.path), "--lora-rank", "2", "--steps", "2", "--threads", "1"]
    main(["train", "policy", str(store), str(tmp_path / "tuned"), *flags])
    tuned = read_checkpoint(tmp_path / "tuned")
    assert tuned.kind == "openvla"
    assert {**tuned.config, "lora_rank": 0, "steps": CONFIG.steps} == {**start.config}
    moved = {name for name, value in tuned.weights.items() if not np.array_equal(value, start.weights[name])}
    assert moved
    assert all("_proj" in name for name in moved)


def test_the_command_refuses_adapters_without_a_start(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["train", "policy", str(store), str(tmp_path / "out"), "--kind", "openvla", "--lora-rank", "2"])
    assert "give a checkpoint to start from" in capsys.readouterr().err
