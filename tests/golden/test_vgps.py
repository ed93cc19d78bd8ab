"""V-GPS critics give the published numbers, and the comparison notices when they do not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import msgpack
import numpy as np
import pytest
import torch

from critics.vgps.config import Stated, infer_network
from critics.vgps.network import ValueNetwork
from critics.vgps.published import torch_axes, torch_name
from steer.spec import Array
from tests.golden.compare_vgps import compare
from tests.golden.vgps_actor import Actor, actor_name

FOLDER = Path(__file__).parent / "vgps"
TREE = Path(__file__).parent / "trees" / "vgps.json"


def test_everything_is_within_its_bound() -> None:
    found = list(compare(FOLDER))
    assert [one for one in found if not one.passed] == []
    assert {one.source for one in found} >= {"ckpt_dir/checkpoint_500000/checkpoint", "ckpt_file/checkpoint_500000"}
    assert sum(one.source.startswith("encoder_variants.npz") for one in found) >= 2 * 13


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder with one checkpoint under other names, to be damaged."""
    folder = tmp_path / "vgps" / "seed7"
    folder.mkdir(parents=True)
    shutil.copy(FOLDER / "ckpt_file" / "checkpoint_500000", folder / "checkpoint_12")
    shutil.copy(FOLDER / "critic_avg.npz", folder / "some_critic.npz")
    return folder


def change(file: Path, edit: Callable[[dict[str, Array]], None]) -> None:
    with np.load(file) as opened:
        arrays = dict(opened)
    edit(arrays)
    np.savez(file, **arrays)


def test_other_names_and_places_are_found(copy: Path) -> None:
    found = list(compare(copy.parent))
    assert {one.source for one in found} == {"seed7/checkpoint_12"}
    assert all(one.passed for one in found)


@pytest.mark.parametrize(
    "name", ["b_q_target", "i_pooled", "b_actor_loc", "c_q_members", "r_bridge_q", "r_fractal_critic_action"]
)
def test_another_array_fails(copy: Path, name: str) -> None:
    change(copy / "some_critic.npz", lambda arrays: arrays.update({name: arrays[name] + 1e-3}))
    assert [one.quantity for one in compare(copy) if not one.passed] == [name]


@pytest.mark.parametrize(
    ("part", "layer", "failed"),
    [("target_params", "Dense_0", {"b_q_target", "r_bridge_q"}), ("params", "network/Dense_1", {"b_q_online"})],
)
def test_another_weight_fails(copy: Path, part: str, layer: str, failed: set[str]) -> None:
    file = copy / "checkpoint_12"
    content = msgpack.unpackb(file.read_bytes())
    node = content["state"][part]["modules_critic"]
    for name in layer.split("/"):
        node = node[name]
    shape, dtype, data = msgpack.unpackb(node["bias"].data)
    shifted = np.frombuffer(data, dtype) + np.float32(1e-3)
    node["bias"] = msgpack.ExtType(1, msgpack.packb([shape, dtype, shifted.tobytes()]))
    file.write_bytes(msgpack.packb(content))
    found = {one.quantity for one in compare(copy) if not one.passed}
    assert failed <= found
    assert "i_pooled" not in found


@pytest.mark.parametrize("name", ["b_q_min", "i_conv_init", "c_q_single", "r_bridge_argmax", "b_actor_mode"])
def test_a_missing_array_is_an_error(copy: Path, name: str) -> None:
    change(copy / "some_critic.npz", lambda arrays: arrays.pop(name))
    with pytest.raises(KeyError):
        list(compare(copy))


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected some of both"):
        list(compare(tmp_path))


def test_the_full_size_tree_has_the_published_names_shapes_and_counts() -> None:
    tree = json.loads(TREE.read_text())
    shapes = {name: tuple(entry["shape"]) for name, entry in tree["params"].items()}
    critic = below(shapes, "modules_critic/")
    with torch.device("meta"):
        network = ValueNetwork(infer_network(critic, Stated()))
        actor = Actor(network.config, (256, 256))
    for part, module, name in (("critic", network, torch_name), ("actor", actor, actor_name)):
        published = below(shapes, f"modules_{part}/")
        ours = {key: tuple(value.shape) for key, value in module.state_dict().items()}
        assert ours == {name(key): in_torch(key, shape) for key, shape in published.items()}
        assert sum(value.numel() for value in module.parameters()) == tree["totals"][part]
    assert network.config.encoder.stages == (3, 4, 6, 3)
    assert (network.config.hidden, network.config.members, network.config.action_size) == ((256, 256), 2, 7)


def below(shapes: dict[str, tuple[int, ...]], prefix: str) -> dict[str, tuple[int, ...]]:
    return {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}


def in_torch(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(shape[axis] for axis in torch_axes(name, len(shape)))
