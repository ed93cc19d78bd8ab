"""OpenVLA and OpenVLA-OFT agree with the golden data, and the comparison notices what is wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.golden import compare_openvla, compare_openvla_oft

GOLDEN = Path(__file__).parent
OPENVLA, OFT = GOLDEN / "openvla", GOLDEN / "openvla_oft"


@pytest.mark.parametrize(
    ("compare", "folder"),
    [(compare_openvla.compare, OPENVLA), (compare_openvla_oft.compare, OFT)],
    ids=["openvla", "oft"],
)
def test_every_quantity_is_within_its_bound(compare: Callable[..., object], folder: Path) -> None:
    found = list(compare(folder))  # type: ignore[call-overload]  # a generator of comparisons
    assert len(found) > 50
    assert [one for one in found if not one.passed] == []


def only_sharded(target: Path) -> Path:
    """A golden folder with one checkpoint, under another name and with its weights in one file of another name."""
    shutil.copytree(OPENVLA / "tiny-sharded-f32", target / "other")
    shutil.copy(OPENVLA / "images.npz", target / "pictures.npz")
    shutil.copy(OPENVLA / "golden_tiny-sharded-f32.npz", target / "results.npz")
    return target


def change_tensor(file: Path, name: str, by: float) -> None:
    file.chmod(0o644)
    tensors = load_file(file)
    tensors[name] = tensors[name] + by
    save_file(tensors, file)


def test_a_changed_weight_is_noticed_whatever_the_checkpoint_is_called(tmp_path: Path) -> None:
    folder = only_sharded(tmp_path)
    change_tensor(folder / "other" / "model-00004-of-00004.safetensors", "language_model.lm_head.weight", 1e-2)
    failed = {one.quantity for one in compare_openvla.compare(folder) if not one.passed}
    assert "case0/logits_first" in failed
    assert "image0/projected" not in failed


def test_a_changed_head_is_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "openvla_oft"
    shutil.copytree(OFT, folder, ignore=shutil.ignore_patterns("*native_bf16.npz"))
    shutil.copy(OPENVLA / "images.npz", folder)
    head = folder / "tiny-oft-bf16" / "action_head--150000_checkpoint.pt"
    tensors = torch.load(head, weights_only=True)
    tensors["module.model.fc2.bias"] = tensors["module.model.fc2.bias"] + 1e-2
    head.chmod(0o644)
    torch.save(tensors, head)
    failed = {one.quantity for one in compare_openvla_oft.compare(folder) if not one.passed}
    assert failed == {
        f"{run}/{name}" for run in ("l1_0", "l1_1", "l1_single") for name in ("action", "action_normalised")
    }


def test_results_of_no_checkpoint_are_an_error(tmp_path: Path) -> None:
    folder = only_sharded(tmp_path)
    (folder / "results.npz").unlink()
    with pytest.raises(FileNotFoundError, match="no results"):
        list(compare_openvla.compare(folder))
