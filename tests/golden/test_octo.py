"""Octo against the outputs of the published code; and the comparison itself, which must notice a changed weight or array."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.golden.compare_octo import compare
from tests.policies.octo.toys import GOLDEN, at, edit_weights

CASE = "c09_lang_w1_nowrist_b1"


def test_every_quantity_is_within_its_bound() -> None:
    found = list(compare(GOLDEN))
    assert [one for one in found if not one.passed] == []
    assert len({one.source for one in found}) == 18
    assert len(found) > 250


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The 1.5 checkpoint under another name, with its smallest case."""
    shutil.copytree(GOLDEN / "octo15_tiny", tmp_path / "mine")
    golden = tmp_path / "mine_golden"
    golden.mkdir()
    for name in (CASE, "images", "schedule"):
        shutil.copy(GOLDEN / "octo15_tiny_golden" / f"{name}.npz", golden)
    return tmp_path


def test_a_changed_weight_is_noticed_from_where_it_acts(small: Path) -> None:
    def double(tree: dict[str, object]) -> None:
        block = at(tree, "octo_transformer/BlockTransformer_0/Transformer_0/encoderblock_1")
        block["LayerNorm_1"]["scale"] = block["LayerNorm_1"]["scale"] * np.float32(1.1)

    edit_weights(small / "mine", double)
    failed = {one.quantity for one in compare(small) if not one.passed}
    assert "out/readout_action/tokens" in failed
    assert "sample/actions_norm" in failed
    assert "tok/primary/tokens" not in failed


def rewrite(file: Path, **changed: np.ndarray) -> None:
    with np.load(file) as stored:
        arrays = {name: stored[name] for name in stored}
    np.savez(file, **(arrays | {name.replace("__", "/"): value for name, value in changed.items()}))


def test_a_changed_mask_is_noticed(small: Path) -> None:
    file = small / "mine_golden" / f"{CASE}.npz"
    mask = np.load(file)["attn/mask"]
    mask[0, 0, 3, 20] ^= True
    rewrite(file, attn__mask=mask)
    assert [one.quantity for one in compare(small) if not one.passed] == ["attn/mask"]


def test_an_array_that_is_not_known_is_an_error(small: Path) -> None:
    rewrite(small / "mine_golden" / f"{CASE}.npz", out__other=np.zeros(3))
    with pytest.raises(ValueError, match="out/other"):
        list(compare(small))


def test_a_checkpoint_without_cases_is_an_error(small: Path) -> None:
    shutil.rmtree(small / "mine_golden")
    with pytest.raises(FileNotFoundError, match="mine_golden"):
        list(compare(small))
