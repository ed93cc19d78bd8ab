"""Observations to one feature vector per request: vectors are flattened over the history, images pass a small CNN."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from steer.observation import ObservationSpec
from steer.policy import PolicySpec
from steer.transforms import Pipeline


class ImageEncoder(nn.Module):
    """Four strided convolutions, pooled to 4 x 4. No normalisation: it would hide the brightness of a uniform image."""

    def __init__(self, features: int, channels: tuple[int, ...] = (16, 32, 64, 64), pooled: int = 4) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in zip((3, *channels[:-1]), channels, strict=True):
            layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.GELU()]
        self.convolutions = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(pooled), nn.Flatten())
        self.head = nn.Linear(channels[-1] * pooled**2, features)

    def forward(self, images: UInt8[Tensor, "n h w 3"]) -> Float[Tensor, "n f"]:
        pixels = images.permute(0, 3, 1, 2).float() / 127.5 - 1
        features: Tensor = self.head(self.convolutions(pixels))
        return features


class ObservationEncoder(nn.Module):
    """All keys of `spec`, in its order, concatenated; frames that are padding count as zeros and are marked."""

    def __init__(self, spec: ObservationSpec, vector_sizes: Mapping[str, int], image_features: int) -> None:
        """vector_sizes: entries per frame of every vector key, after the transforms; all other keys are images."""
        super().__init__()
        self.keys = spec.keys
        self.image_keys = tuple(key for key in spec.keys if key not in vector_sizes)
        # A list, not a dict by key: torch forbids dots in module names, and keys may have them.
        self.images = nn.ModuleList(ImageEncoder(image_features) for _ in self.image_keys)
        per_frame = sum(vector_sizes.values()) + image_features * len(self.images)
        # A history of one frame has no padding, so its mask says nothing.
        self.size = spec.window * (per_frame + (1 if spec.window > 1 else 0))

    def forward(self, arrays: Mapping[str, Tensor], mask: Bool[Tensor, "b t"]) -> Float[Tensor, "b c"]:
        frames = torch.cat([self._per_frame(key, arrays[key]) for key in self.keys], dim=-1)
        if mask.shape[1] > 1:
            flags = mask.to(frames.dtype)[..., None]
            frames = torch.cat([frames * flags, flags], dim=-1)
        return frames.flatten(1)

    def _per_frame(self, key: str, value: Tensor) -> Float[Tensor, "b t f"]:
        if key not in self.image_keys:
            return value.float()
        features: Tensor = self.images[self.image_keys.index(key)](value.flatten(0, 1))
        return features.view(*value.shape[:2], -1)


def vector_sizes(spec: PolicySpec, transforms: Pipeline) -> dict[str, int]:
    """Entries per frame of every vector key as the network sees it, after the transforms."""
    rng = np.random.default_rng(0)
    frame = {array.name: array.generate(rng, (1,)) for array in spec.observation.arrays}
    return {key: int(value.shape[-1]) for key, value in transforms.observe(frame).items() if value.ndim == 2}
