"""Text and actions as tokens: the prompt, its token ids, and the bins that stand for numbers.

The last `bins` ids of a vocabulary of V stand for the bins of [-1, 1], in descending order: V - 1 is the lowest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from tokenizers import Tokenizer

from steer.errors import CheckpointError, ConfigError, SpecError

PROMPTS: Mapping[str, str] = {
    "openvla": "In: What action should the robot take to {instruction}?\nOut:",
    "openvla-v01": (
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and "
        "polite answers to the user's questions. USER: What action should the robot take to {instruction}? ASSISTANT:"
    ),
}
# Llama's piece for a space alone. The models were trained with it between prompt and action.
_SPACE = "▁"
_END = "</s>"


@dataclass(frozen=True)
class ActionBins:
    """Numbers in [-1, 1] as ids of a vocabulary of `vocab_size` tokens (Brohan et al. 2022, section 5.1)."""

    vocab_size: int
    bins: int = 256

    @property
    def first(self) -> int:
        """The smallest id of an action token, which stands for the highest bin."""
        return self.vocab_size - self.bins

    @cached_property
    def edges(self) -> Float[np.ndarray, " n"]:
        return np.linspace(-1.0, 1.0, self.bins)

    @cached_property
    def centres(self) -> Float[np.ndarray, " m"]:
        """One fewer than edges."""
        centres: Float[np.ndarray, " m"] = (self.edges[:-1] + self.edges[1:]) / 2
        return centres

    def index(self, ids: Int[np.ndarray, "*n"]) -> Int[np.ndarray, "*n"]:
        """Position in `centres`; ids that are no action tokens go to the nearest end."""
        index: Int[np.ndarray, "*n"] = np.clip(self.vocab_size - ids - 1, 0, len(self.centres) - 1)
        return index

    def decode(self, ids: Int[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        """Ids to the centres of their bins, float64."""
        values: Float[np.ndarray, "*n"] = self.centres[self.index(ids)]
        return values

    def encode(self, values: Float[np.ndarray, "*n"]) -> Int[np.ndarray, "*n"]:
        """Numbers to ids; what lies outside [-1, 1] goes to the nearest end."""
        ids: Int[np.ndarray, "*n"] = self.vocab_size - np.digitize(np.clip(values, -1.0, 1.0), self.edges)
        return ids


def read_tokenizer(path: Path) -> Tokenizer:
    """`tokenizer.json` of a checkpoint folder. Raises `CheckpointError`."""
    file = path / "tokenizer.json"
    if not file.exists():
        raise CheckpointError(f"{file}: no such file: copy the tokenizer of the checkpoint next to its weights")
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing more specific
        raise CheckpointError(f"{file}: not a tokenizer of the 'tokenizers' library ({error})") from error


def end_token(path: Path) -> int:
    """The id of the token that ends a sequence."""
    found: int | None = read_tokenizer(path).token_to_id(_END)
    if found is None:
        raise CheckpointError(f"{path}: its tokenizer has no {_END!r}, so it is not Llama's: copy it again")
    return found


@dataclass(frozen=True)
class PromptTokenizer:
    """An instruction as the token ids of its prompt.

    default: the instruction of a task that brings none. limit: the largest number of ids.
    """

    tokenizer: Tokenizer
    template: str
    space_id: int
    default: str
    limit: int

    @classmethod
    def load(cls, path: Path, prompt: str, default: str, limit: int) -> PromptTokenizer:
        """`tokenizer.json` of a checkpoint folder. Raises `CheckpointError` unless it is a tokenizer of Llama's kind."""
        if prompt not in PROMPTS:
            raise ConfigError(f"prompt {prompt!r}: expected one of {sorted(PROMPTS)}")
        tokenizer = read_tokenizer(path)
        space = tokenizer.token_to_id(_SPACE)
        if space is None:
            raise CheckpointError(
                f"{path}: its tokenizer has no piece {_SPACE!r} for a space alone, so it is not Llama's: copy it again"
            )
        return cls(tokenizer, PROMPTS[prompt], space, default, limit)

    def text(self, instruction: str) -> str:
        """The prompt. Raises `SpecError` for an instruction of nothing but white space."""
        words = instruction.strip() or self.default
        if not words:
            raise SpecError(
                "the task has no instruction, and this policy acts on one: give the request an instruction, or the model "
                "name a default (?instruction=...)"
            )
        return self.template.format(instruction=words.lower())

    def encode(self, instruction: str) -> Int[np.ndarray, " n"]:
        """Ids of the prompt, with the space before the action. Raises `SpecError` when they are too many."""
        ids = self.with_space(self.ids(self.text(instruction)))
        if len(ids) > self.limit:
            raise SpecError(
                f"an instruction of {len(instruction)} characters makes {len(ids)} tokens, the model has room for "
                f"{self.limit}: shorten it"
            )
        return ids

    def ids(self, prompt: str) -> Int[np.ndarray, " n"]:
        """What the tokenizer makes of a prompt."""
        return np.array(self.tokenizer.encode(prompt).ids, np.int64)

    def with_space(self, ids: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """The ids, ending in the lone space."""
        return ids if len(ids) and ids[-1] == self.space_id else np.append(ids, self.space_id)
