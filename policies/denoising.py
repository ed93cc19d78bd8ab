"""`DenoisingPolicy`: serves what denoises a chunk level by level, from pure noise to the clean chunk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import torch
from jaxtyping import Float
from torch import Tensor

from policies.backbones.config import DenoiserConfig
from policies.backbones.network import DenoisingNetwork
from policies.checkpoints import load_weights, open_checkpoint
from policies.sampling import ChunkPolicy
from steer.policy import PolicySpec
from steer.transforms import Pipeline


class Level(Protocol):
    """One step of a solver."""

    @property
    def time(self) -> float:
        """What the backbone is told."""
        ...

    def at(self, clean: Float[Tensor, "*#n c"], noise: Float[Tensor, "*n c"]) -> Float[Tensor, "*n c"]:
        """A clean chunk at this noise level."""
        ...

    def step(self, x: Float[Tensor, "*n c"], correction: Float[Tensor, "*n c"]) -> Float[Tensor, "*n c"]:
        """The chunk at the next level, given what the backbone says of `x`; may reuse the memory of its arguments."""
        ...


class DenoisingPolicy(ChunkPolicy):
    """A family names its `kind`, the abbreviation of its solver, its types, and the levels of its solver.

    Committed steps are inpainted: at every level they are replaced by themselves at that level, with the candidate's own noise
    (Lugmayr et al. 2022, equation 8, without resampling), so that the rest of the chunk continues them.
    """

    kind: ClassVar[str]
    solver: ClassVar[str]
    config_type: ClassVar[type[Any]]
    network_type: ClassVar[type[DenoisingNetwork]]

    def __init__(
        self,
        config: DenoiserConfig,
        spec: PolicySpec,
        transforms: Pipeline,
        network: DenoisingNetwork,
        version: str,
        device: str = "cpu",
    ) -> None:
        super().__init__(spec, transforms, network, version, device)
        self._network.denoiser.freeze()
        self._levels = self.levels(config, network)
        with torch.inference_mode():
            times = torch.tensor([level.time for level in self._levels], device=self._device)
            self._times = self._network.embed_time(times)[:, None, None]

    @classmethod
    def levels(cls, config: Any, network: Any) -> Sequence[Level]:
        """The solver's steps, from the noisiest level down."""
        raise NotImplementedError

    @classmethod
    def load(cls, path: Path, device: str = "cpu", inference_steps: int | None = None) -> Self:
        """Read a checkpoint folder. inference_steps: instead of the trained configuration's."""
        checkpoint, config, spec = open_checkpoint(path, cls.kind, cls.config_type)
        network = cls.network_type(config, spec, checkpoint.transforms)
        load_weights(network, checkpoint)
        version = checkpoint.version
        if inference_steps is not None and inference_steps != config.inference_steps:
            config = replace(config, inference_steps=inference_steps)
            # Other samples, hence another name: candidate caches are keyed by it.
            version = f"{version}-{cls.solver}{inference_steps}"
        return cls(config, spec, checkpoint.transforms, network, version, device)

    def context(self, features: Float[Tensor, "b f"]) -> Float[Tensor, "s b 1 w"]:
        """The embedding of observation and time for every level."""
        denoiser = self._network.denoiser
        embeddings: Tensor = denoiser.join(denoiser.embed_condition(features)[None, :, None], self._times)
        return embeddings

    def propose(
        self,
        computed: Float[Tensor, "s b 1 w"],
        noise: Float[Tensor, "b k c"],
        committed: Float[Tensor, "b 1 d"] | None,
    ) -> Float[Tensor, "b k c"]:
        x = noise
        for level, embedding in zip(self._levels, computed, strict=True):
            if committed is not None:
                size = committed.shape[-1]
                x = torch.cat([level.at(committed, noise[..., :size]), x[..., size:]], dim=-1)
            x = level.step(x, self._network.denoiser(x, embedding))
        return x
