"""Reading a checkpoint folder: what is taken from it, and what each kind of damage is called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policies.octo.checkpoint import read_octo, unpack_arrays
from steer.errors import CheckpointError
from tests.policies.octo.toys import GOLDEN, TINY, WEIGHTS, at, copy_tiny, edit_json, edit_weights

KERNEL = "heads_action/diffusion_model/reverse_network/Dense_0"


def test_both_versions_are_read() -> None:
    new, old = read_octo(TINY), read_octo(GOLDEN / "octo10_tiny")
    assert sum(value.size for value in new.weights.values()) == 345588
    assert sum(value.size for value in old.weights.values()) == 196100
    assert new.image_sizes == {"primary": (64, 64), "wrist": (48, 48)}
    assert sorted(new.statistics) == ["bridge_dataset", "six_dof_dataset"]
    assert not new.statistics["bridge_dataset"].mask[-1]
    assert old.statistics["bridge_dataset"].mask.all()
    assert new.version != old.version


def test_the_latest_step_is_taken_unless_one_is_named(tmp_path: Path) -> None:
    folder = copy_tiny(tmp_path / "octo")
    (folder / "300000").rename(folder / "5000")
    assert read_octo(folder).version == read_octo(folder, 5000).version
    with pytest.raises(CheckpointError, match=r"no step 7; there are \[5000\]"):
        read_octo(folder, 7)


def test_without_an_example_batch_images_are_squares(tmp_path: Path) -> None:
    folder = copy_tiny(tmp_path / "octo", without=("example_batch.msgpack",))
    assert read_octo(folder).image_sizes == {"primary": (64, 64), "wrist": (48, 48)}


def drop(tree: dict[str, Any]) -> None:
    del at(tree, KERNEL)["bias"]


def misshape(tree: dict[str, Any]) -> None:
    at(tree, KERNEL)["kernel"] = at(tree, KERNEL)["kernel"][1:]


def halve(tree: dict[str, Any]) -> None:
    at(tree, KERNEL)["bias"] = at(tree, KERNEL)["bias"].astype(np.float16)


def spoil(tree: dict[str, Any]) -> None:
    at(tree, KERNEL)["bias"] = at(tree, KERNEL)["bias"] * np.float32("nan")


def replace_by_text(tree: dict[str, Any]) -> None:
    at(tree, KERNEL)["bias"] = "none"


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (drop, f"lacks 1 arrays.*{KERNEL}/bias"),
        (misshape, rf"{KERNEL}/kernel has shape \(107, 60\), expected \(108, 60\)"),
        (halve, f"{KERNEL}/bias is float16, expected float32"),
        (spoil, f"{KERNEL}/bias has values that are not finite"),
        (replace_by_text, f"{KERNEL}/bias has shape str"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(tmp_path: Path, edit: Any, says: str) -> None:
    folder = copy_tiny(tmp_path / "octo")
    edit_weights(folder, edit)
    with pytest.raises(CheckpointError, match=says):
        read_octo(folder)


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    folder = copy_tiny(tmp_path / "octo")
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="not readable as MessagePack"):
        read_octo(folder)


def test_foreign_extensions_and_types_are_refused() -> None:
    import msgpack

    with pytest.raises(ValueError, match="extension type 5"):
        unpack_arrays(msgpack.packb({"a": msgpack.ExtType(5, b"")}))
    with pytest.raises(ValueError, match="array of 'object'"):
        unpack_arrays(msgpack.packb({"a": msgpack.ExtType(1, msgpack.packb([[1], "object", b"12345678"]))}))


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        read_octo(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="no step folder"):
        read_octo(copy_tiny(tmp_path / "steps", without=("300000",)))
    with pytest.raises(CheckpointError, match=r"dataset_statistics\.json: cannot be read"):
        read_octo(copy_tiny(tmp_path / "statistics", without=("dataset_statistics.json",)))
    with pytest.raises(CheckpointError, match="language encoder 't5-tiny' are not known"):
        read_octo(copy_tiny(tmp_path / "encoder", without=("t5-tiny",)))


def test_the_layout_of_a_newer_orbax_is_called_by_its_name(tmp_path: Path) -> None:
    folder = copy_tiny(tmp_path / "octo", without=("checkpoint",))
    (folder / WEIGHTS).with_name("manifest.ocdbt").write_bytes(b"")
    with pytest.raises(CheckpointError, match="newer Orbax"):
        read_octo(folder)


def test_another_activation_of_the_encoder_is_refused(tmp_path: Path) -> None:
    folder = copy_tiny(tmp_path / "octo")
    edit_json(folder / "t5-tiny" / "config.json", lambda content: content.update(feed_forward_proj="gated-gelu"))
    with pytest.raises(CheckpointError, match="gated-gelu"):
        read_octo(folder)
