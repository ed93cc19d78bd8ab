"""Images of any size to the pixels of the vision towers, as the published processor makes them.

Resized to the towers' size whatever the aspect ratio, by PIL with antialiasing and 8-bit rounding (a tensor resize is not
equal), then scaled and normalised once per tower.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from policies.openvla.config import TowerConfig, read_json
from steer.errors import CheckpointError

_FILTERS: Mapping[int, Image.Resampling] = {
    2: Image.Resampling.BILINEAR,
    3: Image.Resampling.BICUBIC,
    1: Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class ImageProcessor:
    """size: (height, width); means, stds: three numbers per tower."""

    size: tuple[int, int]
    resample: Image.Resampling
    means: tuple[tuple[float, ...], ...]
    stds: tuple[tuple[float, ...], ...]

    @classmethod
    def load(cls, path: Path, towers: tuple[TowerConfig, ...]) -> ImageProcessor:
        """`preprocessor_config.json`. Raises `CheckpointError` for what is not supported."""
        content = read_json(path / "preprocessor_config.json")
        strategy = content.get("image_resize_strategy", "letterbox")
        if strategy != "resize-naive" or content.get("tvf_do_letterbox"):
            raise CheckpointError(
                f"{path}: image_resize_strategy {strategy!r} is not supported, expected 'resize-naive'"
            )
        try:
            # Upstream stores these last, and they win over the unrounded `means` and `stds` beside them.
            normalise = content["tvf_normalize_params"]
            resize = content["tvf_resize_params"]
            height, width = resize[0]["size"]
            resample = _FILTERS[int(resize[0]["interpolation"])]
            means, stds = ([tuple(map(float, entry[name])) for entry in normalise] for name in ("mean", "std"))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: preprocessor_config.json cannot be used: {error!r}") from error
        if len(means) != len(towers) or any((tower.img_size,) * 2 != (height, width) for tower in towers):
            raise CheckpointError(
                f"{path}: preprocessor_config.json is for {len(means)} towers of {height} x {width} pixels, config.json has "
                f"{[tower.img_size for tower in towers]}"
            )
        return cls((int(height), int(width)), resample, tuple(means), tuple(stds))

    def resize(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
        height, width = self.size
        if image.shape[:2] == self.size:
            return image
        return np.asarray(Image.fromarray(image).resize((width, height), self.resample))

    def pixels(self, image: UInt8[np.ndarray, "h w 3"]) -> Float[Tensor, "c h2 w2"]:
        """float32, three channels per tower."""
        unit = torch.from_numpy(self.resize(image).copy()).permute(2, 0, 1).contiguous().float().div(255)
        towers = [
            (unit - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
            for mean, std in zip(self.means, self.stds, strict=True)
        ]
        return torch.cat(towers)

    def describe(self) -> list[dict[str, Any]]:
        """The statistics in force, per tower."""
        return [{"mean": list(m), "std": list(s)} for m, s in zip(self.means, self.stds, strict=True)]
