"""What a V-GPS network looks like, and how much of that its parameters tell.

Names and shapes say stages, widths, kind of block and norm, conditioning, coordinates, hidden layers and members. They do not say
the activation, the number of norm groups, how the feature map is pooled, or how large the image was: `Stated` carries these,
with the values of the released checkpoint.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from steer.errors import CheckpointError, ConfigError

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
Pooling: TypeAlias = Literal["avg", "max", "none", "spatial_softmax", "spatial_learned_embeddings"]
POOLINGS: tuple[Pooling, ...] = ("avg", "max", "none", "spatial_softmax", "spatial_learned_embeddings")


@dataclass(frozen=True)
class Stated:
    """What parameters do not tell.

    pooling None: spatial_learned_embeddings where its kernel is there, else avg.
    image_size: (height, width) that images are resized to; None leaves them as they come.
    """

    activation: Literal["swish", "relu"] = "swish"
    groups: int = 4
    pooling: Pooling | None = None
    softmax_temperature: float = 1.0
    image_size: tuple[int, int] | None = (256, 256)

    def __post_init__(self) -> None:
        if self.activation not in ("swish", "relu"):
            raise ConfigError(f"activation is {self.activation!r}, expected swish or relu")
        if self.pooling is not None and self.pooling not in POOLINGS:
            raise ConfigError(f"pooling is {self.pooling!r}, expected one of {list(POOLINGS)}")
        if self.groups < 1 or self.softmax_temperature <= 0:
            raise ConfigError(
                f"groups {self.groups}, softmax_temperature {self.softmax_temperature}: both must be positive"
            )
        if self.image_size is not None and min(self.image_size) < 1:
            raise ConfigError(f"image_size is {self.image_size}, expected a positive height and width")


@dataclass(frozen=True)
class EncoderConfig:
    """The residual encoder.

    stages: blocks per stage; filters: of the first stage, doubled in each further one.
    conditioning: how text acts behind every block: scale and shift, scale alone, or not at all.
    text_size: entries of the text vector, 0 without conditioning.
    learned_temperature: of the spatial softmax. spatial_kernel: (H, W, C, F) of the learned embeddings, or empty.
    """

    stages: tuple[int, ...]
    filters: int
    block: Literal["basic", "bottleneck"] = "basic"
    norm: Literal["group", "layer"] = "group"
    coordinates: bool = True
    conditioning: Literal["film", "multiplicative", "none"] = "film"
    text_size: int = 512
    pooling: Pooling = "avg"
    learned_temperature: bool = False
    spatial_kernel: tuple[int, ...] = ()
    activation: Literal["swish", "relu"] = "swish"
    groups: int = 4
    softmax_temperature: float = 1.0

    @property
    def expansion(self) -> int:
        """Output channels of a block over its filters."""
        return 4 if self.block == "bottleneck" else 1

    @property
    def channels(self) -> int:
        """Channels of the last feature map."""
        return (self.filters << len(self.stages) - 1) * self.expansion

    def feature_map(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the last feature map: first convolution, max-pool, and one halving per further stage."""
        height, width = image_size
        for _ in range(len(self.stages) + 1):
            height, width = -(-height // 2), -(-width // 2)
        return height, width

    def features(self, image_size: tuple[int, int] | None) -> int:
        """Length of the encoding; "none" pooling needs to know the image."""
        if self.pooling == "none":
            if image_size is None:
                raise ConfigError("pooling 'none' makes an encoding as long as the image is large: state image_size")
            height, width = self.feature_map(image_size)
            return height * width * self.channels
        if self.pooling == "spatial_softmax":
            return 2 * self.channels
        if self.pooling == "spatial_learned_embeddings":
            return self.channels * self.spatial_kernel[3]
        return self.channels


@dataclass(frozen=True)
class NetworkConfig:
    """Encoder, then `members` multilayer perceptrons over (encoding, action) that share their last layer."""

    encoder: EncoderConfig
    hidden: tuple[int, ...] = (256, 256)
    members: int = 2
    action_size: int = 7
    layer_norm: bool = False
    image_size: tuple[int, int] | None = field(default=(256, 256))


def infer_encoder(shapes: Shapes, stated: Stated) -> EncoderConfig:
    """The encoder whose parameters have these published names and shapes. Raises `CheckpointError` where none has."""
    blocks = _numbered(shapes, r"(?:Bottleneck)?ResNetBlock_(\d+)/Conv_0/kernel")
    films = _numbered(shapes, r"FilmConditioning_(\d+)/Dense_0/kernel")
    multipliers = _numbered(shapes, r"Dense_(\d+)/kernel")
    if "conv_init/kernel" not in shapes or not blocks:
        raise CheckpointError(
            f"no residual image encoder among the parameters {sorted(shapes)[:5]}...: not a V-GPS value function"
        )
    text = films or multipliers
    kernel = shapes.get("SpatialLearnedEmbeddings_0/kernel", ())
    return EncoderConfig(
        stages=_stages([shape[-1] for shape in blocks]),
        filters=shapes["conv_init/kernel"][-1],
        block="bottleneck" if any(name.startswith("Bottleneck") for name in shapes) else "basic",
        norm="layer" if any("/LayerNorm_" in name for name in shapes) else "group",
        coordinates=shapes["conv_init/kernel"][2] == 5,
        conditioning="film" if films else "multiplicative" if multipliers else "none",
        text_size=text[0][0] if text else 0,
        pooling=stated.pooling or ("spatial_learned_embeddings" if kernel else "avg"),
        learned_temperature="SpatialSoftmax_0/softmax_temperature" in shapes,
        spatial_kernel=kernel,
        activation=stated.activation,
        groups=stated.groups,
        softmax_temperature=stated.softmax_temperature,
    )


def infer_network(shapes: Shapes, stated: Stated) -> NetworkConfig:
    """The critic whose parameters have these published names and shapes."""
    prefix = "encoder/encoder/"
    encoder = infer_encoder(
        {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}, stated
    )
    if (
        encoder.spatial_kernel
        and stated.image_size
        and encoder.spatial_kernel[:2] != encoder.feature_map(stated.image_size)
    ):
        raise CheckpointError(
            f"learned embeddings are for a feature map of {encoder.spatial_kernel[:2]}, images of {stated.image_size} give "
            f"{encoder.feature_map(stated.image_size)}: state the image_size that it was trained with"
        )
    layers = _numbered(shapes, r"network/Dense_(\d+)/kernel")
    if not layers or any(len(shape) != 3 for shape in layers):
        raise CheckpointError(
            f"the critic's layers have shapes {layers}, expected (members, in, out) each: not an ensemble of critics"
        )
    members, inputs, _ = layers[0]
    action_size = inputs - encoder.features(stated.image_size)
    if action_size < 1:
        raise CheckpointError(
            f"the critic reads {inputs} numbers, {encoder.features(stated.image_size)} of which would be the image encoding: "
            f"state the pooling (now {encoder.pooling}) and the image size that it was trained with"
        )
    return NetworkConfig(
        encoder,
        hidden=tuple(shape[-1] for shape in layers),
        members=members,
        action_size=action_size,
        layer_norm="network/LayerNorm_0/scale" in shapes,
        image_size=stated.image_size,
    )


def _numbered(shapes: Shapes, pattern: str) -> list[tuple[int, ...]]:
    """Shapes of the names that match, by the number in them (as text, 10 would come before 2)."""
    found = {int(match[1]): shape for name, shape in shapes.items() if (match := re.fullmatch(pattern, name))}
    return [found[index] for index in sorted(found)]


def _stages(widths: list[int]) -> tuple[int, ...]:
    """Blocks per stage, from the filters of each block: a stage ends where they change."""
    starts = [i for i, width in enumerate(widths) if i == 0 or width != widths[i - 1]]
    return tuple(end - start for start, end in zip(starts, [*starts[1:], len(widths)], strict=True))
