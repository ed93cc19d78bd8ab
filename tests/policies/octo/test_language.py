"""Instructions to token ids: padding, the end mark, what is cut, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer as File
from tokenizers import models, pre_tokenizers, processors

from policies.octo.language import NoInstructions, Table, TokenIds, Tokenizer, instructions
from steer.errors import ConfigError, UnsupportedError


def tokenizer_file(folder: Path, end: int = 1) -> Path:
    """A small tokenizer with T5's conventions: 0 pads, 1 ends."""
    words = {"<pad>": 0, "</s>": end, "<unk>": 2, "pick": 3, "up": 4, "the": 5, "cube": 6}
    words |= {"filler": 1} if end != 1 else {}
    file = File(models.WordLevel(words, unk_token="<unk>"))
    file.pre_tokenizer = pre_tokenizers.Whitespace()
    file.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", end)])
    file.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def ids(encoded: object) -> tuple[list[int], list[int]]:
    assert isinstance(encoded, TokenIds)
    return encoded.ids.tolist(), encoded.mask.tolist()


@pytest.mark.parametrize("place", ["tokenizer.json", "."])
def test_a_short_instruction_is_padded(tmp_path: Path, place: str) -> None:
    tokenizer_file(tmp_path)
    got = Tokenizer(tmp_path / place, 8, 100).encode("pick up the cube")
    assert ids(got) == ([3, 4, 5, 6, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0, 0, 0])


def test_a_long_instruction_is_cut_and_keeps_its_end_mark(tmp_path: Path) -> None:
    got = Tokenizer(tokenizer_file(tmp_path), 8, 100).encode("cube " * 400)
    assert ids(got) == ([6] * 7 + [1], [1] * 8)


def test_files_that_are_not_its_tokenizer_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no file"):
        Tokenizer(tmp_path, 8, 100)
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(ConfigError, match="not readable as a tokenizer"):
        Tokenizer(tmp_path / "broken.json", 8, 100)
    with pytest.raises(ConfigError, match="has 7 tokens, the checkpoint 5"):
        Tokenizer(tokenizer_file(tmp_path), 8, 5)
    with pytest.raises(ConfigError, match=r"empty text as \[9\]"):
        Tokenizer(tokenizer_file(tmp_path, end=9), 8, 100)


def test_a_table_gives_ids_or_embeddings(tmp_path: Path) -> None:
    ready = np.ones((4, 3), np.float32)
    entries: dict[str, Any] = {"pick up / put down": np.array([3, 1]), "wave": ready}
    np.savez(tmp_path / "table.npz", **entries)
    table = Table(tmp_path / "table.npz", 4, 10, 3)
    assert ids(table.encode("pick up / put down")) == ([3, 1, 0, 0], [1, 1, 0, 0])
    np.testing.assert_array_equal(np.asarray(table.encode("wave")), ready)
    with pytest.raises(UnsupportedError, match=r"'jump' is not in.*pick up / put down.*wave"):
        table.encode("jump")


@pytest.mark.parametrize("entry", [np.array([3, 99]), np.ones((4, 2), np.float32), np.ones((4, 3)), np.array(["a"])])
def test_entries_that_do_not_fit_are_refused(tmp_path: Path, entry: np.ndarray) -> None:
    np.savez(tmp_path / "table.npz", wave=entry)
    with pytest.raises(ConfigError, match="'wave'"):
        Table(tmp_path / "table.npz", 4, 10, 3)


def test_without_either_an_instruction_is_refused_with_the_remedy() -> None:
    with pytest.raises(UnsupportedError, match=r"'wave' was given.*\?tokenizer=PATH"):
        NoInstructions().encode("wave")
    with pytest.raises(ConfigError, match="give one"):
        instructions("a", "b", 16, 10, 3)
