"""Images of another size: the filter against pillow's, and what passes untouched."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from policies.octo.images import OctoImages, centre_weights


def smooth(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    channels = [127 + 100 * np.sin(x / 9), 127 + 100 * np.cos(y / 7), 127 + 60 * np.sin((x + y) / 11)]
    return np.stack(channels, axis=-1).astype(np.uint8)


def test_an_image_of_the_models_size_passes_untouched() -> None:
    image = smooth(32, 32)
    assert OctoImages((("a", 32, 32),)).observe({"a": image})["a"] is image


@pytest.mark.parametrize("size", [(96, 128), (20, 24)])
def test_other_sizes_are_filtered_as_lanczos_with_antialiasing(size: tuple[int, int]) -> None:
    image = smooth(*size)
    got = OctoImages((("a", 32, 32),)).observe({"a": np.stack([image, image])[None]})["a"]
    want = np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.LANCZOS), np.int16)
    assert got.shape == (1, 2, 32, 32, 3)
    assert got.dtype == np.uint8
    assert np.abs(got[0, 1] - want).max() <= 2


def test_the_crop_takes_the_centre() -> None:
    image = np.zeros((40, 40, 3), np.uint8)
    image[:, 1:-1] = 200
    got = OctoImages((("a", 40, 40),), cropped=("a",)).observe({"a": image})["a"]
    # One pixel of each side falls outside: side sqrt(.9) of 39 intervals leaves out 1.0007.
    assert (got == 200).all()
    np.testing.assert_allclose(centre_weights(40).sum(axis=1), 1, rtol=1e-6)
