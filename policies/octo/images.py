"""Images of another size to the model's: Lanczos-3 with antialiasing, as in training; optionally the centre crop of evaluation.

The aspect ratio is not kept, as it was not in training. An image of the model's size passes untouched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, UInt8

from steer.spec import Array as NumpyArray
from steer.transforms import OnObservations, register

# Training crops cover at least nine tenths of the area on average; evaluation takes that much from the centre.
CROPPED_AREA = 0.9


@register
@dataclass(frozen=True)
class OctoImages(OnObservations):
    """sizes: observation key -> (height, width); cropped: keys of which the centre is taken. Arrays are uint8[..., h, w, 3]."""

    name: ClassVar[str] = "octo_images"
    sizes: tuple[tuple[str, int, int], ...]
    cropped: tuple[str, ...] = ()

    def observe(self, arrays: Mapping[str, NumpyArray]) -> Mapping[str, NumpyArray]:
        fitted = {key: self.fit(key, (height, width), arrays[key]) for key, height, width in self.sizes}
        return {**arrays, **fitted}

    def fit(self, key: str, size: tuple[int, ...], images: UInt8[np.ndarray, "*n h w 3"]) -> NumpyArray:
        """Images of one key at the model's size."""
        if images.shape[-3:-1] != size:
            images = np.asarray(_resize(images.reshape(-1, *images.shape[-3:]), size=size)).reshape(
                *images.shape[:-3], *size, 3
            )
        if key in self.cropped:
            images = np.asarray(_crop(images.reshape(-1, *size, 3))).reshape(images.shape)
        return images


@partial(jax.jit, static_argnames="size")
def _resize(images: UInt8[Array, "n h w 3"], size: tuple[int, ...]) -> UInt8[Array, "n a b 3"]:
    shape = (images.shape[0], *size, 3)
    return _pixels(jax.image.resize(images.astype(jnp.float32), shape, "lanczos3", antialias=True))


@jax.jit
def _crop(images: UInt8[Array, "n h w 3"]) -> UInt8[Array, "n h w 3"]:
    rows, columns = (centre_weights(length) for length in images.shape[1:3])
    return _pixels(jnp.einsum("ah,nhwc,bw->nabc", rows, images.astype(jnp.float32), columns))


def _pixels(images: Float[Array, "n h w 3"]) -> UInt8[Array, "n h w 3"]:
    return jnp.clip(jnp.round(images), 0, 255).astype(jnp.uint8)


@lru_cache(maxsize=16)
def centre_weights(length: int) -> Float[np.ndarray, "n n"]:
    """Linear interpolation of the centre back to the whole length; the ends of the crop fall on the first and last pixel."""
    side = CROPPED_AREA**0.5
    at = (length - 1) * ((1 - side) / 2 + side * np.linspace(0, 1, length))
    distance = np.abs(at[:, None] - np.arange(length)[None, :])
    weights: Float[np.ndarray, "n n"] = np.maximum(0, 1 - distance).astype(np.float32)
    return weights
