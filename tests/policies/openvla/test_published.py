"""Published folders: what they hold, what is refused, and what an observation does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from policies.openvla import load
from policies.openvla.config import read_config
from policies.openvla.model import OpenVlaModel, restore_rotary
from policies.openvla.oft_modules import NoiseModule, RegressionModule, ToEmbedding
from policies.openvla.policy import OpenVlaPolicy
from policies.openvla.published import load_model
from policies.openvla.weights import fingerprint, weight_files
from steer.errors import CheckpointError, ConfigError, SpecError, UnsupportedError
from steer.model_name import ModelName
from steer.observation import Batch, Observation, Task
from steer.robot import write_robot
from steer.spec import Array
from tests.policies.openvla.toys import GOLDEN, OFT, SHARDED, copy_without
from tests.policies.toys import ROBOT

KEY = "unnorm_key=bridge_orig"


def open_policy(path: Path, options: str = KEY) -> OpenVlaPolicy:
    policy = load(ModelName.parse(f"openvla:{path}?{options}"))
    assert isinstance(policy, OpenVlaPolicy)
    return policy


@pytest.fixture(scope="module")
def policy() -> OpenVlaPolicy:
    return open_policy(SHARDED)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copy_without(SHARDED, tmp_path / "model")


def see(image: Array, instruction: str = "put it down") -> Batch:
    return Batch.stack([Observation.single({"image": image})], [Task(instruction)])


def first(policy: OpenVlaPolicy, batch: Batch) -> Array:
    return policy.sample(policy.encode(batch), 1, np.array([0]))


# -- the parameter trees of the full sizes, built without memory


def tree(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((GOLDEN / "trees" / name).read_text())
    return content


def test_the_full_size_tree_is_the_published_one(tmp_path: Path) -> None:
    stated = {
        "model_type": "openvla",
        "timm_model_ids": ["vit_large_patch14_reg4_dinov2.lvd142m", "vit_so400m_patch14_siglip_224"],
        "text_config": {"model_type": "llama", "pad_token_id": 32000, "torch_dtype": "bfloat16", "vocab_size": 32064},
        "pad_to_multiple_of": 64,
        "norm_stats": {"bridge_orig": {}},
    }
    (tmp_path / "config.json").write_text(json.dumps(stated))
    config = read_config(tmp_path)
    with torch.device("meta"):
        model = OpenVlaModel(config)
    published = tree("openvla-7b.json")
    meta = published.pop("_meta")
    ours = {name: list(value.shape) for name, value in model.state_dict().items()}
    assert ours == {name: shape for name, (shape, _) in published.items()}
    assert sum(value.numel() for value in model.state_dict().values()) == meta["total_parameters"]
    assert {value.device.type for value in model.state_dict().values()} == {"meta"}
    used = sum(value.numel() for value in model.state_dict().values())
    for tower in model.vision_backbone.towers:
        tower.drop_unused()
    assert used - sum(v.numel() for v in model.state_dict().values()) == meta["unused_at_inference_parameters"]
    assert config.vocab_size == 32000
    assert config.llama["rms_norm_eps"] == 1e-6


@pytest.mark.parametrize(
    ("part", "make"),
    [
        ("l1_action_head", lambda: RegressionModule(4096, 7)),
        ("diffusion_action_head", lambda: NoiseModule(4096, 7)),
        ("proprio_projector", lambda: ToEmbedding(8, 4096)),
        ("noisy_action_projector", lambda: ToEmbedding(1, 4096)),
    ],
)
def test_the_full_size_heads_are_the_published_ones(part: str, make: Callable[[], torch.nn.Module]) -> None:
    with torch.device("meta"):
        module = make()
    published = tree("openvla-oft-heads.json")[part]
    ours = {f"module.{name}": list(value.shape) for name, value in module.state_dict().items()}
    assert ours == {name: shape for name, (shape, _) in published["tensors"].items()}
    assert sum(value.numel() for value in module.state_dict().values()) == published["total_parameters"]


# -- loading


def test_rotary_frequencies_keep_their_precision_in_bf16() -> None:
    config = read_config(SHARDED)
    model = load_model(config, SHARDED, "cpu", torch.bfloat16)
    assert model.dtype == torch.bfloat16
    frequencies = model.language_model.model.rotary_emb.inv_freq
    dim = config.hidden_size // config.llama["num_attention_heads"]
    expected = 10000.0 ** -(torch.arange(0, dim, 2) / dim)
    assert frequencies.dtype == torch.float32
    torch.testing.assert_close(frequencies, expected)
    restore_rotary(model.language_model, torch.device("cpu"))


def edit(file: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


LAST = "model-00004-of-00004.safetensors"
NORM = "language_model.model.norm.weight"


def test_a_missing_tensor_is_named(folder: Path) -> None:
    edit(folder / LAST, lambda tensors: tensors.pop(NORM))
    with pytest.raises(CheckpointError, match=rf"1 missing \['{NORM}'\]"):
        open_policy(folder)


def test_a_misshapen_tensor_is_named(folder: Path) -> None:
    edit(folder / LAST, lambda tensors: tensors.update({NORM: torch.ones(47)}))
    with pytest.raises(CheckpointError, match=rf"{NORM} has shape \(47,\), expected \(48,\)"):
        open_policy(folder)


def test_a_tensor_too_many_is_named(folder: Path) -> None:
    edit(folder / LAST, lambda tensors: tensors.update(film=torch.ones(1)))
    with pytest.raises(CheckpointError, match=r"1 unexpected \['film'\]"):
        open_policy(folder)


def test_a_missing_shard_is_named(folder: Path) -> None:
    (folder / LAST).unlink()
    with pytest.raises(CheckpointError, match=LAST):
        open_policy(folder)


def test_a_truncated_shard_is_named(folder: Path) -> None:
    (folder / LAST).write_bytes((folder / LAST).read_bytes()[:100])
    with pytest.raises(CheckpointError, match=LAST):
        open_policy(folder)


def test_an_index_does_not_lead_out_of_the_folder(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    shutil.copy(folder / LAST, folder.parent)
    content["weight_map"][NORM] = f"../{LAST}"
    index.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="missing"):
        weight_files(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "llava"}, "'llava', expected 'openvla'"),
        (
            {"tiny_overrides": {}, "timm_model_ids": ["resnet50", "vit_so400m_patch14_siglip_224"]},
            "unknown vision towers",
        ),
        ({"text_config": {"model_type": "phi"}}, "'phi', expected 'llama'"),
        ({"use_fused_vision_backbone": False}, "2 vision towers, expected 1"),
    ],
)
def test_a_configuration_of_something_else_is_refused(folder: Path, change: dict[str, Any], said: str) -> None:
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, **change}))
    with pytest.raises(CheckpointError, match=said):
        read_config(folder)


def test_letterboxed_images_are_refused(folder: Path) -> None:
    content = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps({**content, "image_resize_strategy": "letterbox"}))
    with pytest.raises(CheckpointError, match="letterbox"):
        open_policy(folder)


def test_a_wrong_data_set_lists_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"\['bridge_orig', 'libero_spatial_no_noops', 'tiny_no_mask'\]"):
        open_policy(SHARDED, "unnorm_key=bridge")


@pytest.mark.parametrize("options", ["color=red", "dtype=int8", "decoding=backwards", "evaluation_crop=yes"])
def test_options_that_are_not_meant_are_refused(options: str) -> None:
    with pytest.raises(ConfigError, match=options.split("=")[0]):
        open_policy(SHARDED, f"{KEY}&{options}")


def test_the_version_follows_the_weights_and_what_changes_the_candidates(policy: OpenVlaPolicy, folder: Path) -> None:
    assert open_policy(folder).version == policy.version
    assert open_policy(folder, f"{KEY}&top_k=3").version != policy.version
    before = fingerprint(folder, [folder / LAST])
    edit(folder / LAST, lambda tensors: tensors[NORM].add_(1e-3))
    assert fingerprint(folder, [folder / LAST]) != before


# -- the action spec


def test_what_no_file_states_is_unknown(policy: OpenVlaPolicy) -> None:
    action = policy.spec.action
    assert (action.kind, action.frame, action.gripper, action.rate_hz) == ("unknown", "unknown", "unknown", 5.0)
    statistics = json.loads((SHARDED / "dataset_statistics.json").read_text())["bridge_orig"]["action"]
    np.testing.assert_allclose(action.low[:6], statistics["q01"][:6], rtol=1e-6)
    np.testing.assert_allclose(action.high[:6], statistics["q99"][:6], rtol=1e-6)
    assert (action.low[6], action.high[6]) == (-1.0, 1.0)


def test_a_sidecar_with_other_axes_is_refused(folder: Path) -> None:
    write_robot(folder / "robot.json", ROBOT)
    with pytest.raises(SpecError, match="2 action axes, the statistics have 7"):
        open_policy(folder)


# -- what an observation does


def test_black_and_white_images_give_different_logits(policy: OpenVlaPolicy) -> None:
    black, white = (policy.encode(see(np.full((32, 40, 3), value, np.uint8)))[1][0].prefix for value in (0, 255))
    head = policy.model.language_model.lm_head
    assert (head(black.hidden) - head(white.hidden)).abs().max() > 0.05


def test_images_of_any_size_are_resized(policy: OpenVlaPolicy) -> None:
    grey = [first(policy, see(np.full((*size, 3), 90, np.uint8))) for size in ((224, 224), (17, 480), (1, 1))]
    np.testing.assert_allclose(grey[0], grey[1], atol=1e-6)
    np.testing.assert_allclose(grey[0], grey[2], atol=1e-6)


def test_the_instruction_matters_and_rows_may_differ_in_length(policy: OpenVlaPolicy) -> None:
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    tasks = ["put it down", "open the top drawer and place it in the cup", "put it down"]
    batch = Batch.stack([Observation.single({"image": image})] * 3, [Task(task) for task in tasks])
    got = policy.sample(policy.encode(batch), 3, np.array([1, 2, 1]))
    np.testing.assert_array_equal(got[0], got[2])
    assert not np.allclose(got[0], got[1])
    alone = policy.sample(policy.encode(see(image, tasks[1])), 3, np.array([2]))
    np.testing.assert_allclose(got[1:2], alone, atol=1e-5)


def test_a_task_without_an_instruction_is_refused(policy: OpenVlaPolicy) -> None:
    with pytest.raises(SpecError, match="no instruction"):
        policy.encode(see(np.zeros((8, 8, 3), np.uint8), ""))


def test_an_instruction_beyond_the_model_is_refused(policy: OpenVlaPolicy) -> None:
    with pytest.raises(SpecError, match=r"room for 1785"):
        policy.encode(see(np.zeros((8, 8, 3), np.uint8), "xyzzy " * 2000))


def test_the_evaluation_crop_changes_what_is_seen(policy: OpenVlaPolicy) -> None:
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    cropped = open_policy(SHARDED, f"{KEY}&evaluation_crop=true")
    assert not np.allclose(cropped.inputs.pixels(see(image)), policy.inputs.pixels(see(image)), atol=0.1)


# -- OpenVLA-OFT


def test_oft_sees_two_views_and_proprioception_and_proposes_chunks() -> None:
    policy = open_policy(OFT, "unnorm_key=libero_spatial_no_noops&instruction=wait")
    assert policy.spec.observation.keys == ("image", "wrist_image", "state")
    assert policy.spec.observation["state"].shape == (8,)
    assert (policy.spec.horizon, policy.spec.stochastic) == (8, False)
    batch = Batch.stack([policy.spec.observation.generate(np.random.default_rng(0))])
    with pytest.raises(UnsupportedError, match="refiner"):
        policy.sample(policy.encode(batch), 4, np.array([0]))


def test_two_heads_in_one_folder_are_refused(tmp_path: Path) -> None:
    folder = copy_without(OFT, tmp_path / "model")
    shutil.copy(folder / "action_head--150000_checkpoint.pt", folder / "action_head--9_checkpoint.pt")
    with pytest.raises(CheckpointError, match="several files of action_head"):
        open_policy(folder, "unnorm_key=libero_spatial_no_noops")


def test_vision_towers_that_read_the_text_are_refused(tmp_path: Path) -> None:
    folder = copy_without(OFT, tmp_path / "model")
    torch.save({}, folder / "vision_backbone--150000_checkpoint.pt")
    with pytest.raises(CheckpointError, match="FiLM, which are not run here"):
        load(ModelName.parse(f"openvla:{folder}?unnorm_key=libero_spatial_no_noops"))


def test_a_head_that_does_not_fit_is_named(tmp_path: Path) -> None:
    folder = copy_without(OFT, tmp_path / "model")
    file = folder / "action_head--150000_checkpoint.pt"
    tensors = torch.load(file, weights_only=True)
    del tensors["module.model.fc1.bias"]
    torch.save(tensors, file)
    with pytest.raises(CheckpointError, match=r"1 missing \['model\.fc1\.bias'\]"):
        open_policy(folder, "unnorm_key=libero_spatial_no_noops")


def test_a_head_that_would_run_code_is_refused(tmp_path: Path) -> None:
    folder = copy_without(OFT, tmp_path / "model")
    torch.save({"module.model.fc1.bias": Path("/")}, folder / "action_head--150000_checkpoint.pt")
    with pytest.raises(CheckpointError, match="not readable"):
        open_policy(folder, "unnorm_key=libero_spatial_no_noops")
