"""From an instruction to what the language encoder takes: token ids, or embeddings that are ready.

- A tokenizer (`?tokenizer=`, the `tokenizer.json` of t5-base): any instruction; what is longer than the model's tokens is cut,
  the end mark stays.
- A table (`?instructions=`, an .npz): instruction -> token ids int[n] or the encoder's outputs float32[16, d]; others are refused.
- The empty instruction (or blanks) means "none": it needs neither, and the model is told that there is no language.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from steer.errors import ConfigError, MissingExtraError, UnsupportedError

PAD, END = 0, 1


@dataclass(frozen=True)
class TokenIds:
    """ids, mask: int32[n], padded with `PAD` where the mask is 0. Outputs at padding enter the model, so its ids matter."""

    ids: Int[np.ndarray, " n"]
    mask: Int[np.ndarray, " n"]

    @classmethod
    def padded(cls, ids: list[int], length: int) -> TokenIds:
        """Cut to `length` with the end mark kept, then filled up."""
        kept = ids if len(ids) <= length else [*ids[: length - 1], END]
        fill = length - len(kept)
        return cls(np.array(kept + [PAD] * fill, np.int32), np.array([1] * len(kept) + [0] * fill, np.int32))


Encoded = TokenIds | Float[np.ndarray, "n d"]


class Instructions(Protocol):
    """Knows instructions; raises `UnsupportedError` for one that it cannot encode."""

    def encode(self, instruction: str) -> Encoded: ...


class NoInstructions:
    """Neither tokenizer nor table was given."""

    def encode(self, instruction: str) -> Encoded:
        raise UnsupportedError(
            f"instruction {instruction[:60]!r} was given, but the checkpoint holds no tokenizer: load it with "
            "?tokenizer=PATH (tokenizer.json of t5-base) or ?instructions=PATH (a table), or give a goal image alone"
        )


class Tokenizer:
    """A Hugging Face tokenizer file."""

    def __init__(self, path: Path, length: int, vocab_size: int) -> None:
        try:
            import tokenizers
        except ImportError as error:
            raise MissingExtraError("tokenizers", "jax", "reading a tokenizer") from error
        file = path / "tokenizer.json" if path.is_dir() else path
        if not file.is_file():
            raise ConfigError(f"option tokenizer={path}: no file {file}: give t5-base's tokenizer.json or its folder")
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(file.read_text(encoding="utf-8"))
        # The library raises bare exceptions for files that it cannot parse.
        except Exception as error:
            raise ConfigError(f"{file}: not readable as a tokenizer ({error})") from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._length = length
        if self._tokenizer.encode("").ids != [END]:
            raise ConfigError(f"{file}: encodes the empty text as {self._tokenizer.encode('').ids}, T5 has [{END}]")
        if self._tokenizer.get_vocab_size() > vocab_size:
            raise ConfigError(
                f"{file}: has {self._tokenizer.get_vocab_size()} tokens, the checkpoint {vocab_size}: not its tokenizer"
            )

    def encode(self, instruction: str) -> Encoded:
        return TokenIds.padded(self._tokenizer.encode(instruction).ids, self._length)


class Table:
    """An .npz with one array per instruction."""

    def __init__(self, path: Path, length: int, vocab_size: int, width: int) -> None:
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored}
        except (OSError, ValueError, BadZipFile) as error:
            raise ConfigError(f"option instructions={path}: not readable as .npz ({error})") from error
        self._path = path
        self._known: Mapping[str, Encoded] = {
            name: _entry(f"{path}: {name!r}", value, length, vocab_size, width) for name, value in arrays.items()
        }

    def encode(self, instruction: str) -> Encoded:
        if instruction not in self._known:
            raise UnsupportedError(
                f"instruction {instruction[:60]!r} is not in {self._path}, which has {sorted(self._known)[:10]}: "
                "add it, or load the model with ?tokenizer=PATH"
            )
        return self._known[instruction]


def _entry(where: str, value: NDArray[Any], length: int, vocab_size: int, width: int) -> Encoded:
    if np.issubdtype(value.dtype, np.integer) and value.ndim == 1:
        if value.size and not 0 <= value.min() <= value.max() < vocab_size:
            raise ConfigError(f"{where}: ids from {value.min()} to {value.max()}, expected 0 to {vocab_size - 1}")
        return TokenIds.padded([int(i) for i in value if i != PAD], length)
    if value.dtype == np.float32 and value.shape == (length, width):
        return value
    raise ConfigError(f"{where}: {value.dtype}{list(value.shape)}, expected ids int[n] or float32[{length}, {width}]")


def instructions(tokenizer: str | None, table: str | None, length: int, vocab_size: int, width: int) -> Instructions:
    """By the options of a model name. length: tokens of an instruction; width: of the encoder."""
    if tokenizer and table:
        raise ConfigError("options tokenizer and instructions are both given: give one")
    if tokenizer:
        return Tokenizer(Path(tokenizer), length, vocab_size)
    return Table(Path(table), length, vocab_size, width) if table else NoInstructions()
