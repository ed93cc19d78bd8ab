"""Who sees whom: the order of the sequence and the block-wise attention rule, as one vectorised numpy expression.

    [language prefix] + per step [cameras ..., (1.5: repeated language), readouts ...]

The original builds the same matrix token by token in Python at every trace, seconds for a full sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int

from policies.octo.config import OctoConfig

LANGUAGE = "language"


@dataclass(frozen=True)
class Group:
    """Tokens of one kind within a step."""

    name: str
    size: int
    readout: bool = False


@dataclass(frozen=True)
class Layout:
    """The sequence for a window: N = prefix + window * (sum of the groups)."""

    prefix: int
    window: int
    groups: tuple[Group, ...]

    @classmethod
    def of(cls, config: OctoConfig, cameras: Sequence[tuple[str, int]], window: int) -> Layout:
        """cameras: those that are there, in the order of the configuration, each with the tokens of an image.

        A camera that is not there is left out of the sequence.
        """
        groups = [Group(name, size) for name, size in cameras]
        if config.repeats_language:
            groups.append(Group(LANGUAGE, config.language_tokens))
        groups += [Group(name, size, readout=True) for name, size in config.readouts]
        return cls(config.language_tokens, window, tuple(groups))

    @property
    def step_size(self) -> int:
        return sum(group.size for group in self.groups)

    @cached_property
    def offsets(self) -> dict[str, int]:
        """Where each group begins within a step."""
        starts = np.cumsum([0, *(group.size for group in self.groups)]).tolist()
        return {group.name: start for group, start in zip(self.groups, starts, strict=False)}

    def rows(self, name: str) -> Int[np.ndarray, "w n"]:
        """Positions of a group's tokens after the prefix, per step."""
        size = next(group.size for group in self.groups if group.name == name)
        steps = np.arange(self.window)[:, None] * self.step_size
        return steps + self.offsets[name] + np.arange(size)


def attention_rule(layout: Layout, exact: bool = True) -> Bool[np.ndarray, "n n"]:
    """[query, key]: may the query see the key, before the masks of the keys.

    - the prefix sees the prefix;
    - observations (and repeated language) see the prefix and the observations of their own and earlier steps;
    - readouts also see the readouts of their own kind, of their own and earlier steps.

    exact: False for models of version 1.0, which were trained with an error: the first token of every group of a step,
    but the step's first group, counts as a token of the group before it.
    """
    sizes = [group.size for group in layout.groups]
    kind_in_step = np.repeat(np.arange(len(sizes)), sizes)
    if not exact:
        firsts = np.cumsum(sizes)[:-1]
        kind_in_step[firsts] -= 1
    prefix = np.full(layout.prefix, -1)
    kind = np.concatenate([prefix, np.tile(kind_in_step, layout.window)])
    step = np.concatenate([prefix, np.repeat(np.arange(layout.window), layout.step_size)])
    readout = np.array([group.readout for group in layout.groups] + [False])[kind]
    # The prefix has step -1, before every other: "not later" alone says who sees it, and whom it sees.
    not_later = step[None, :] <= step[:, None]
    rule: Bool[np.ndarray, "n n"] = not_later & (~readout[None, :] | (kind[None, :] == kind[:, None]))
    return rule
