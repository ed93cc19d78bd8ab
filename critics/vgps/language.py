"""Instruction encoders: from a text to the vector that conditions a V-GPS critic.

The released critic was trained on MUSE (universal-sentence-encoder-multilingual, version 3; 512 numbers). That model exists as a
TensorFlow graph, which few want beside their robot, so a table of ready vectors does as well. Two forms of one content:

    JSON    {"put the spoon on the towel": [0.012, ...], ...}
    .npz    "instructions": text [N], "embeddings": float32 [N, 512]       (numpy.savez; read without pickle)

A table knows its instructions to the letter, and refuses others. The empty instruction, unless the table has it, is the zero
vector, which leaves the critic unconditioned: that is how a server warms it. A warning says so, once.
"""

from __future__ import annotations

import difflib
import json
import zipfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import structlog
from jaxtyping import Float

from steer.errors import ConfigError, SpecError

MUSE = "https://tfhub.dev/google/universal-sentence-encoder-multilingual/3"
HUB = "tensorflow-hub"
_SHOWN = 80
_log = structlog.get_logger(__name__)


class InstructionEncoder(Protocol):
    """Encodes instructions into vectors of `size` numbers."""

    @property
    def size(self) -> int: ...

    def __call__(self, instructions: Sequence[str]) -> Float[np.ndarray, "b t"]: ...


class EmbeddingTable:
    """Ready vectors by instruction."""

    def __init__(self, instructions: Sequence[str], embeddings: Float[np.ndarray, "n t"]) -> None:
        if embeddings.ndim != 2 or len(instructions) != len(embeddings) or not len(instructions):
            raise ConfigError(
                f"embeddings have shape {embeddings.shape} for {len(instructions)} instructions: expected one vector for each"
            )
        if not np.isfinite(embeddings).all():
            raise ConfigError("embeddings hold numbers that are not finite: make the table again")
        self.instructions = tuple(instructions)
        self.embeddings = embeddings.astype(np.float32)
        self._warned = False
        self._row = {instruction: row for row, instruction in enumerate(instructions)}
        if len(self._row) != len(self.instructions):
            raise ConfigError("an instruction stands in the table twice: keep one of them")

    @classmethod
    def read(cls, path: Path) -> EmbeddingTable:
        """Read a table of either form; raises `ConfigError`."""
        try:
            if path.suffix == ".npz":
                with np.load(path, allow_pickle=False) as file:
                    return cls([str(text) for text in file["instructions"]], file["embeddings"])
            content = json.loads(path.read_text())
            if not isinstance(content, Mapping):
                raise ConfigError(f"embeddings {path}: the JSON is no object of instruction -> numbers")
            return cls(list(content), np.array(list(content.values()), np.float32))
        except OSError as error:
            raise ConfigError(
                f"embeddings {path} cannot be read ({error.strerror or error}): check the path"
            ) from error
        except (ValueError, TypeError, KeyError, zipfile.BadZipFile) as error:
            raise ConfigError(
                f"embeddings {path} is no table ({error}): write JSON {{instruction: numbers}}, or an .npz with "
                "'instructions' and 'embeddings'"
            ) from error

    @property
    def size(self) -> int:
        return int(self.embeddings.shape[1])

    def __call__(self, instructions: Sequence[str]) -> Float[np.ndarray, "b t"]:
        """Raises `SpecError` for an instruction that is not in the table."""
        return np.stack([self._vector(instruction) for instruction in instructions])

    def _vector(self, instruction: str) -> Float[np.ndarray, " t"]:
        if instruction in self._row:
            vector: Float[np.ndarray, " t"] = self.embeddings[self._row[instruction]]
            return vector
        if instruction:
            raise SpecError(self._unknown(instruction))
        if not self._warned:
            self._warned = True
            _log.warning("no instruction was given and the table has no vector for that: scored without one")
        return np.zeros(self.size, np.float32)

    def _unknown(self, instruction: str) -> str:
        shown = (
            instruction if len(instruction) <= _SHOWN else f"{instruction[:_SHOWN]}... ({len(instruction)} characters)"
        )
        near = difflib.get_close_matches(instruction[:_SHOWN], self.instructions, 3, 0.5)
        return (
            f"instruction {shown!r} is not among the {len(self.instructions)} of the embedding table"
            + (f", near it are {near}" if near else "")
            + ": add its vector to the table, or install tensorflow-hub and leave the table out"
        )


class HubEncoder:
    """MUSE itself, through tensorflow-hub; each instruction is encoded once and kept."""

    size = 512

    def __init__(self, handle: str = MUSE) -> None:
        import tensorflow_hub  # type: ignore[import-not-found]  # optional, installed by hand
        import tensorflow_text  # type: ignore[import-not-found]  # noqa: F401  # registers the operations of MUSE

        self._model = tensorflow_hub.load(handle)
        self._encode = lru_cache(maxsize=1024)(self._one)

    def __call__(self, instructions: Sequence[str]) -> Float[np.ndarray, "b t"]:
        return np.stack([self._encode(instruction) for instruction in instructions])

    def _one(self, instruction: str) -> Any:
        return np.asarray(self._model([instruction]), np.float32)[0]


def make_instruction_encoder(embeddings: str) -> InstructionEncoder:
    """embeddings: path of a table, or empty for tensorflow-hub. Raises `ConfigError` where neither is there."""
    if embeddings:
        return EmbeddingTable.read(Path(embeddings))
    missing = [package for package in ("tensorflow_hub", "tensorflow_text") if find_spec(package) is None]
    if missing:
        raise ConfigError(
            f"a V-GPS critic reads MUSE vectors of instructions: no table was given, and not installed: "
            f"{', '.join(missing)}; write vgps:PATH?embeddings=TABLE.json (or .npz), or install tensorflow-hub and tensorflow-text"
        )
    return HubEncoder()
