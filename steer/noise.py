"""Candidate noise keyed by (seed, k), the same on every machine and in every framework."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int


def candidate_noise(
    seeds: Int[np.ndarray, " b"], num_samples: int, shape: tuple[int, ...]
) -> Float[np.ndarray, "b k *shape"]:
    """Standard normal noise float32[B, K, *shape].

    One counter-based stream per seed, drawn in the order of k, so that fewer candidates are a prefix of more and no row
    depends on its neighbours in the batch.
    """
    noise = np.empty((len(seeds), num_samples, *shape), np.float32)
    for row, seed in enumerate(seeds):
        generator = np.random.Generator(np.random.Philox(key=int(seed) % 2**64))
        generator.standard_normal(out=noise[row], dtype=np.float32)
    return noise
