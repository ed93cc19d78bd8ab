"""`DenoisingNetwork`: the encoder of observations and the backbone that a configuration names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from policies.backbones.base import Backbone
from policies.backbones.config import DenoiserConfig
from policies.backbones.mlp import ResidualMlp
from policies.backbones.transformer import Transformer
from policies.backbones.unet import Unet
from policies.encoder import ObservationEncoder, vector_sizes
from steer.policy import PolicySpec
from steer.transforms import Pipeline


class DenoisingNetwork(nn.Module):
    """What diffusion and flow have in common; a family adds its loss as `forward`.

    time_scale: brings the family's times to the range in which their sinusoidal features tell them apart, tens to thousands.
    """

    time_scale: ClassVar[int] = 1

    def __init__(self, config: DenoiserConfig, spec: PolicySpec, transforms: Pipeline) -> None:
        super().__init__()
        self.encoder = ObservationEncoder(spec.observation, vector_sizes(spec, transforms), config.image_features)
        self.denoiser = make_backbone(config, spec, self.encoder.size)

    def correct(
        self,
        arrays: Mapping[str, Tensor],
        mask: Bool[Tensor, "b t"],
        x: Float[Tensor, "b c"],
        times: Shaped[Tensor, " b"],
    ) -> Float[Tensor, "b c"]:
        """The backbone's correction of the noisy chunks `x` at these times."""
        condition = self.denoiser.embed_condition(self.encoder(arrays, mask))
        correction: Tensor = self.denoiser(x, self.denoiser.join(condition, self.embed_time(times)))
        return correction

    def embed_time(self, times: Shaped[Tensor, " s"]) -> Float[Tensor, "s w"]:
        """The backbone's embedding of the family's times."""
        return self.denoiser.embed_time(times * self.time_scale)


def make_backbone(config: DenoiserConfig, spec: PolicySpec, features: int) -> Backbone:
    """The backbone of `config` for chunks of `spec`, given `features` of the observation."""
    horizon, axes, time_features = spec.horizon, spec.action.size, config.time_features
    if config.backbone == "unet":
        unet = config.unet
        return Unet(horizon, axes, features, unet.channels, unet.kernel, unet.groups, unet.condition, time_features)
    if config.backbone == "transformer":
        sizes = config.transformer
        return Transformer(
            horizon,
            axes,
            features,
            spec.observation.window,
            sizes.width,
            sizes.heads,
            sizes.blocks,
            sizes.expansion,
            time_features,
        )
    return ResidualMlp(horizon * axes, features, config.hidden, config.expansion, config.blocks, time_features)
