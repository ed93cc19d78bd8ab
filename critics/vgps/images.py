"""Resizing as the published evaluation does it: Lanczos-3 with antialias, rounded to uint8.

OpenCV's Lanczos does not antialias, and Pillow rounds between its two passes; trained weights saw neither.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float, UInt8

_RADIUS = 3


def resize_lanczos3(
    images: UInt8[np.ndarray, "*lead h w 3"], size: tuple[int, int]
) -> UInt8[np.ndarray, "*lead h2 w2 3"]:
    """Images of another height and width; the same array where they have it already. Both passes unclipped, half to even."""
    height, width = images.shape[-3:-1]
    if (height, width) == size:
        return images
    rows, columns = _weights(height, size[0]), _weights(width, size[1])
    tall = np.tensordot(images.astype(np.float32), rows, (-3, 1))  # *lead w 3 h2
    both = np.tensordot(tall, columns, (-3, 1))  # *lead 3 h2 w2
    return np.clip(np.rint(np.moveaxis(both, -3, -1)), 0, 255).astype(np.uint8)


@lru_cache(maxsize=16)
def _weights(given: int, wanted: int) -> Float[np.ndarray, "wanted given"]:
    """Share of each given pixel in each wanted one: half-pixel centres, the kernel widened where the image shrinks."""
    scale = given / wanted
    centres = (np.arange(wanted) + 0.5) * scale
    distance = np.abs(centres[:, None] - (np.arange(given) + 0.5)) / max(scale, 1.0)
    weights = np.where(distance < _RADIUS, np.sinc(distance) * np.sinc(distance / _RADIUS), 0.0)
    shares: Float[np.ndarray, "wanted given"] = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    return shares
