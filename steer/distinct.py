"""Equal candidates, found once: a policy of tokens often proposes the same chunk several times, and scoring it once is enough."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int


def distinct(candidates: Float[np.ndarray, "b k *rest"]) -> tuple[Int[np.ndarray, "b u"], Int[np.ndarray, "b k"]]:
    """(first, where): `first` are the positions of each row's different candidates, in order; candidate k equals the one at
    `first[where[k]]`, bit for bit. U is the largest number in any row; shorter rows repeat their candidate 0.
    """
    rows = [_distinct_row(row) for row in candidates]
    width = max(len(first) for first, _ in rows)
    padded = [first + [0] * (width - len(first)) for first, _ in rows]
    return np.array(padded, np.intp), np.array([where for _, where in rows], np.intp)


def _distinct_row(row: Float[np.ndarray, "k *rest"]) -> tuple[list[int], list[int]]:
    seen: dict[bytes, int] = {}
    first: list[int] = []
    where: list[int] = []
    for k, candidate in enumerate(row):
        position = seen.setdefault(candidate.tobytes(), len(seen))
        if position == len(first):
            first.append(k)
        where.append(position)
    return first, where
