"""Checkpoint folders: whole or refused, and nothing in them is ever executed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from steer.checkpoints import add_document, read_checkpoint, require_kind, require_weights, write_checkpoint
from steer.errors import CheckpointError, ConfigError
from steer.model_name import ModelName
from steer.normalize import NormalizeActions, fit_vector
from steer.policy import PolicySpec
from steer.transforms import NearField, Pipeline, RenameKeys
from tests.core.toys import ACTION, OBSERVATION

PIPELINE = Pipeline(
    (
        RenameKeys((("pose", "state"),)),
        NearField("state", (0, 1)),
        fit_vector("state", np.array([[0.0, 1.0, 0.1, 0.2], [2.0, 1.0, 0.3, 0.4]])),
        NormalizeActions.of(ACTION),
    )
)


def write(path: Path, value: float = 1.0) -> str:
    return write_checkpoint(
        path,
        kind="toy",
        config={"width": 3},
        spec=PolicySpec(OBSERVATION, ACTION, 4),
        transforms=PIPELINE,
        weights={"w": np.full((2, 3), value, np.float32)},
        card="# A toy\n",
    )


def test_a_round_trip_keeps_everything(tmp_path: Path) -> None:
    version = write(tmp_path / "toy")
    read = read_checkpoint(tmp_path / "toy")
    assert (read.kind, read.version, read.transforms) == ("toy", version, PIPELINE)
    assert np.array_equal(read.weights["w"], np.ones((2, 3), np.float32))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["toy"]


def test_the_version_names_the_weights_not_what_was_said_of_them(tmp_path: Path) -> None:
    first = write(tmp_path / "toy")
    add_document(tmp_path / "toy", "verdict", {"may_steer": True})
    read = read_checkpoint(tmp_path / "toy")
    assert read.version == first
    assert read.documents["verdict"] == {"may_steer": True}
    assert write(tmp_path / "toy", 2.0) != first


@pytest.mark.parametrize("name", ["config.json", "weights.safetensors", "manifest.json"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    write(tmp_path / "toy")
    (tmp_path / "toy" / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        read_checkpoint(tmp_path / "toy")


def test_truncated_weights_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "toy")
    file = tmp_path / "toy" / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="truncated or changed"):
        read_checkpoint(tmp_path / "toy")


def test_swapped_weights_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "toy")
    save_file({"w": np.zeros((2, 3), np.float32)}, tmp_path / "toy" / "weights.safetensors")
    with pytest.raises(CheckpointError, match="truncated or changed"):
        read_checkpoint(tmp_path / "toy")


def test_a_full_disk_keeps_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = write(tmp_path / "toy")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("steer.checkpoints.fsync_tree", full)
    with pytest.raises(CheckpointError, match="No space left"):
        write(tmp_path / "toy", 2.0)
    assert read_checkpoint(tmp_path / "toy").version == version
    assert [p.name for p in tmp_path.iterdir()] == ["toy"]


def test_an_unknown_transform_is_refused_not_imported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown transform 'os\.system'"):
        Pipeline.from_json([{"name": "os.system", "command": "true"}])
    with pytest.raises(ConfigError, match="list of objects"):
        Pipeline.from_json({"name": "near_field"})


def test_another_kind_and_other_weights_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "toy")
    read = read_checkpoint(tmp_path / "toy")
    with pytest.raises(CheckpointError, match="holds a 'toy', expected a 'diffusion'"):
        require_kind(read, "diffusion")
    require_weights(read, {"w": (2, 3)})
    with pytest.raises(CheckpointError, match=r"w has shape \(2, 3\), expected \(3, 2\)"):
        require_weights(read, {"w": (3, 2)})
    with pytest.raises(CheckpointError, match=r"missing \['b'\], unexpected \['w'\]"):
        require_weights(read, {"b": (2,)})


def test_transforms_undo_in_reverse() -> None:
    actions = np.array([[0.5, -1.0]], np.float32)
    assert np.allclose(PIPELINE.to_robot(PIPELINE.to_model(actions)), actions)
    seen = PIPELINE.observe({"pose": np.array([1.0, 1.0], np.float32)})["state"]
    assert seen.shape == (4,)
    assert np.allclose(seen[:2], [0.0, 0.0])


@pytest.mark.parametrize(
    ("text", "kind", "place", "options"),
    [
        ("diffusion:runs/base", "diffusion", "runs/base", {}),
        ("openvla:a/b?unnorm_key=x&dtype=bf16", "openvla", "a/b", {"unnorm_key": "x", "dtype": "bf16"}),
        ("grpc://host:50051", "grpc", "host:50051", {}),
        ("gym:steer/PickPlace-v0?seed=3", "gym", "steer/PickPlace-v0", {"seed": "3"}),
    ],
)
def test_model_names(text: str, kind: str, place: str, options: dict[str, str]) -> None:
    assert ModelName.parse(text) == ModelName(kind, place, options)


def test_a_path_alone_asks_the_folder(tmp_path: Path) -> None:
    write(tmp_path / "toy")
    assert ModelName.parse(str(tmp_path / "toy")).kind == "toy"
    with pytest.raises(CheckpointError, match="no such checkpoint folder"):
        ModelName.parse(str(tmp_path / "nothing"))
    (tmp_path / "toy" / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="not readable as JSON"):
        ModelName.parse(str(tmp_path / "toy"))


def test_options_nobody_knows_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"diffusion:x has no options \['devise'\]; it has \['device'\]"):
        ModelName.parse("diffusion:x?devise=cpu").refuse_unknown("device")


def test_another_format_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "toy")
    folder = tmp_path / "toy"
    content = json.loads((folder / "config.json").read_text()) | {"format": 99}
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError):
        read_checkpoint(folder)
