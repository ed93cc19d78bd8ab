"""The network: each image through its own convolutions, joined with the vectors in a multilayer perceptron, to one logit."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from critics.reward.config import RewardConfig
from steer.errors import ConfigError
from steer.observation import ObservationSpec
from steer.spec import Array, ArraySpec
from steer.transforms import Pipeline


class Convolutions(nn.Module):
    """An image to a vector: convolutions that halve the size, each normalised over its channels."""

    def __init__(self, size: int, channels: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for given, wanted in itertools.pairwise((3, *channels)):
            layers += [nn.Conv2d(given, wanted, 3, 2, padding=1), nn.GroupNorm(1, wanted), nn.GELU()]
            size = (size + 1) // 2
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.size = (channels[-1] if channels else 3) * size * size

    def forward(self, images: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b f"]:
        """images: RGB, 0..255."""
        features: Tensor = self.layers(images.movedim(-1, 1).float() / 127.5 - 1)
        return features


class RewardNetwork(nn.Module):
    """Inputs as `inputs` makes them."""

    def __init__(self, config: RewardConfig, observation: ObservationSpec, vector_size: int) -> None:
        """vector_size: of all vectors together, as the transforms leave them."""
        super().__init__()
        self.images = tuple(spec.name for spec in observation.arrays if is_image(spec))
        # A module's name may not hold a dot, and a key may.
        self.encoders = nn.ModuleList(Convolutions(config.image_size, config.channels) for _ in self.images)
        size = vector_size + sum(encoder.size for encoder in self.encoders)  # type: ignore[misc]  # ModuleList items are typed as Module
        widths = (size, *config.hidden)
        layers: list[nn.Module] = []
        for given, wanted in itertools.pairwise(widths):
            layers += [nn.Linear(given, wanted), nn.LayerNorm(wanted), nn.GELU()]
        self.head = nn.Sequential(*layers, nn.Linear(widths[-1], 1))

    def forward(self, vectors: Float[Tensor, "b n"], images: Mapping[str, Tensor]) -> Float[Tensor, " b"]:
        """The logit of success."""
        parts = [vectors] + [encoder(images[key]) for key, encoder in zip(self.images, self.encoders, strict=True)]
        logits: Tensor = self.head(torch.cat(parts, -1))
        return logits[:, 0]


def make_network(config: RewardConfig, observation: ObservationSpec, transforms: Pipeline) -> RewardNetwork:
    """An untrained network; raises `ConfigError` for a key that is neither a vector of fixed length nor an image."""
    for spec in observation.arrays:
        if not is_image(spec) and (len(spec.shape) != 1 or spec.shape[0] < 1):
            raise ConfigError(
                f"{spec.name!r} has shape {spec.shape}, expected a vector of fixed length or an image: choose other `keys`"
            )
    vectors = {spec.name: np.zeros((1, *spec.shape), np.float32) for spec in observation.arrays if not is_image(spec)}
    size = sum(value.shape[-1] for value in transforms.observe(vectors).values())
    return RewardNetwork(config, observation, size)


def inputs(
    config: RewardConfig, observation: ObservationSpec, transforms: Pipeline, arrays: Mapping[str, Array]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Frames, key -> [n, ...], as the network takes them: float32[n, size] and key -> uint8[n, size, size, 3]."""
    vectors = {spec.name: arrays[spec.name] for spec in observation.arrays if not is_image(spec)}
    observed = transforms.observe(vectors)
    count = len(next(iter(arrays.values())))
    flat = [np.asarray(observed[key], np.float32) for key in vectors] or [np.zeros((count, 0), np.float32)]
    images = {
        spec.name: torch.from_numpy(_reduced(arrays[spec.name], config.image_size))
        for spec in observation.arrays
        if is_image(spec)
    }
    return torch.from_numpy(np.concatenate(flat, -1)), images


def shifted(images: UInt8[Tensor, "b h w 3"], most: int) -> UInt8[Tensor, "b h w 3"]:
    """Each image moved by up to `most` pixels each way, its border repeated (Kostrikov et al. 2020, DrQ)."""
    if not most:
        return images
    count, height, width = images.shape[:3]
    padded = F.pad(images.movedim(-1, 1).float(), [most] * 4, mode="replicate").movedim(1, -1).to(images.dtype)
    offsets = torch.randint(0, 2 * most + 1, (count, 2))
    return torch.stack(
        [image[y : y + height, x : x + width] for image, (y, x) in zip(padded, offsets.tolist(), strict=True)]
    )


def is_image(spec: ArraySpec) -> bool:
    return spec.dtype == "uint8" and len(spec.shape) == 3


def _reduced(images: UInt8[np.ndarray, "n h w 3"], size: int) -> UInt8[np.ndarray, "n s s 3"]:
    if images.shape[1:3] == (size, size):
        return np.ascontiguousarray(images)
    return np.stack([cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA) for image in images])
