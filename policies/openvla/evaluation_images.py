"""What LIBERO fine-tunes see at evaluation time: a JPEG round trip, a Lanczos resize and a centre crop before the processor.

The published evaluation does this in TensorFlow; here it is numpy and PIL. Crop and resize round as TensorFlow does; the JPEG
decoder does not (the accurate integer transform instead of the fast one: about 1 of 255 on average).
"""

from __future__ import annotations

import io

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

# TensorFlow takes the root in single precision, and a different last bit moves pixels.
_CROP_SIDE = np.sqrt(np.float32(0.9))
_LOBES = 3.0


def prepare(image: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "h2 w2 3"]:
    """The whole chain, for one view. Views that were recorded upside down are turned by the robot's driver, not here."""
    return centre_crop(lanczos(jpeg_round_trip(image), size))


def jpeg_round_trip(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Quality 95, 4:2:0, as the training data were stored."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=95, subsampling=2)
    return np.asarray(Image.open(stream))


def lanczos(image: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Three lobes, widened when the image shrinks; both passes unclipped in float32, then rounded half to even."""
    rows = _weights(image.shape[0], size[0])
    columns = _weights(image.shape[1], size[1])
    resized = np.einsum("ih,hwc->iwc", rows, image.astype(np.float32))
    resized = np.einsum("jw,iwc->ijc", columns, resized)
    rounded: UInt8[np.ndarray, "h2 w2 3"] = np.clip(np.rint(resized), 0, 255).astype(np.uint8)
    return rounded


def centre_crop(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """The middle nine tenths of the area, bilinearly back to the same size."""
    unit = image.astype(np.float32) * np.float32(1 / 255)
    for axis in (1, 0):
        unit = _sample(unit, axis)
    rounded: UInt8[np.ndarray, "h w 3"] = np.floor(np.clip(unit, 0, 1) * np.float32(255.5)).astype(np.uint8)
    return rounded


def _sample(values: Float[np.ndarray, "h w 3"], axis: int) -> Float[np.ndarray, "h w 3"]:
    """Linear interpolation along one axis at the positions of the crop."""
    count = values.shape[axis]
    start = (np.float32(1) - _CROP_SIDE) / np.float32(2)
    step = (start + _CROP_SIDE) - start
    positions = start * np.float32(count - 1) + np.arange(count, dtype=np.float32) * step
    below = np.floor(positions).astype(np.int64)
    above = np.minimum(below + 1, count - 1)
    shape = [1, 1, 1]
    shape[axis] = count
    share = (positions - below.astype(np.float32)).reshape(shape)
    low, high = np.take(values, below, axis), np.take(values, above, axis)
    sampled: Float[np.ndarray, "h w 3"] = low + (high - low) * share
    return sampled


def _weights(source: int, target: int) -> Float[np.ndarray, "t s"]:
    """Row i: the weights of the source's entries in entry i, half-pixel centres, summing to 1."""
    scale = np.float32(source / target)
    radius = np.float32(_LOBES) * max(scale, np.float32(1))
    centres = (np.arange(target, dtype=np.float32) + np.float32(0.5)) * scale
    distance = np.arange(source, dtype=np.float32)[None] + np.float32(0.5) - centres[:, None]
    x = distance / max(scale, np.float32(1))
    weights = np.where(np.abs(distance) < radius, np.sinc(x) * np.sinc(x / np.float32(_LOBES)), 0).astype(np.float32)
    normalised: Float[np.ndarray, "t s"] = weights / weights.sum(axis=1, keepdims=True)
    return normalised
