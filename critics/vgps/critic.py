"""`VGPSCritic`: a published V-GPS value function (Nakamoto et al. 2024, arXiv 2410.13816) as `steer.critic.Critic`.

Scores step 0 of each chunk, with the target network, and by default takes the minimum over its members, as published. The image
and the instruction are encoded once for any number of candidates.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from critics.checkpoints import weights_of
from critics.vgps.bounds import Bounds
from critics.vgps.config import NetworkConfig, Stated, infer_network
from critics.vgps.flax_checkpoint import locate, read_arrays
from critics.vgps.images import resize_lanczos3
from critics.vgps.language import EmbeddingTable, InstructionEncoder, make_instruction_encoder
from critics.vgps.network import ValueNetwork
from critics.vgps.published import put, to_torch
from steer.action import ActionSpec
from steer.checkpoints import read_checkpoint, require_kind, require_weights, write_checkpoint
from steer.critic import CriticSpec
from steer.errors import CheckpointError, ConfigError, SpecError, UnsupportedError
from steer.observation import Batch, ObservationSpec
from steer.serial import from_json
from steer.spec import Array, ArraySpec
from steer.transforms import Pipeline

KIND = "vgps"
GAMMA = 0.98
"""Discount of the released checkpoint."""
PUBLISHED_SCORES = ("state", "target_params", "modules_critic")
"""Where a published agent keeps the network whose scores were published."""
_TABLE = "language.embeddings"


@dataclass(frozen=True)
class VGPSConfig:
    """What a saved folder keeps besides weights and spec. instructions: of the embedding table that lies with the weights."""

    network: NetworkConfig
    bounds: Bounds
    key: str = "image"
    instructions: tuple[str, ...] = ()


class VGPSCritic:
    """Scores first actions. See the module's header."""

    def __init__(
        self,
        config: VGPSConfig,
        network: ValueNetwork,
        instructions: InstructionEncoder | None,
        action: ActionSpec | None = None,
        version: str = "",
        gamma: float = GAMMA,
    ) -> None:
        """instructions: None where nothing is conditioned on text. action: instead of what the bounds alone say."""
        self.config = config
        self.network = network.eval()
        given, wanted = 0 if instructions is None else instructions.size, config.network.encoder.text_size
        if given != wanted:
            raise ConfigError(
                f"instructions are encoded in {given} numbers, the critic was trained on {wanted}: give a table that fits"
                if wanted
                else "this critic is not conditioned on instructions: leave the embeddings out"
            )
        self._instructions = instructions
        action = action or config.bounds.action_spec()
        if action.size != config.network.action_size or len(config.bounds.low) != action.size:
            raise ConfigError(
                f"the critic scores actions of {config.network.action_size} axes, the bounds have {len(config.bounds.low)} "
                f"and the action spec {action.size}: give bounds of as many axes"
            )
        self._spec = CriticSpec(
            observation=ObservationSpec((ArraySpec(config.key, "uint8", (-1, -1, 3)),)),
            action=action,
            prefixes=(1,),
            members=config.network.members,
            gamma=gamma,
            reduction="min",
            scores="first_action",
        )
        self._version = version or _version(network)

    @classmethod
    def from_flax(
        cls,
        path: Path,
        bounds: Bounds,
        instructions: InstructionEncoder | None = None,
        *,
        stated: Stated | None = None,
        key: str = "image",
        action: ActionSpec | None = None,
        gamma: float = GAMMA,
        params: Literal["target_params", "params"] = "target_params",
    ) -> VGPSCritic:
        """Import a published checkpoint (either form).

        instructions: MUSE through tensorflow-hub unless given. params: the published score uses the target network.
        """
        file = locate(path)
        network = build(read_arrays(file, ("state", params, "modules_critic")), stated or Stated(), str(file))
        if instructions is None and network.config.encoder.text_size:
            instructions = make_instruction_encoder("")
        return cls(VGPSConfig(network.config, bounds, key), network, instructions, action, gamma=gamma)

    @classmethod
    def load(cls, path: Path, instructions: InstructionEncoder | None = None) -> VGPSCritic:
        """Read one of our own checkpoint folders. instructions: instead of the table that lies in it."""
        checkpoint = read_checkpoint(path)
        require_kind(checkpoint, KIND)
        config = from_json(VGPSConfig, checkpoint.config, f"{path}: config")
        spec = from_json(CriticSpec, checkpoint.spec, f"{path}: spec")
        weights = dict(checkpoint.weights)
        with torch.device("meta"):
            network = ValueNetwork(config.network)
        wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
        table = (len(config.instructions), config.network.encoder.text_size)
        require_weights(checkpoint, wanted | ({_TABLE: table} if config.instructions else {}))
        stored = weights.pop(_TABLE, None)
        if instructions is None and stored is not None:
            instructions = EmbeddingTable(config.instructions, stored)
        elif instructions is None and config.network.encoder.text_size:
            instructions = make_instruction_encoder("")
        put(network, {name: torch.from_numpy(np.array(value)) for name, value in weights.items()})
        return cls(config, network, instructions, spec.action, checkpoint.version, spec.gamma)

    def save(self, path: Path, card: str = "") -> str:
        """Write one of our own checkpoint folders, with the embedding table where there is one; returns its version."""
        weights = weights_of(self.network)
        config = self.config
        if isinstance(self._instructions, EmbeddingTable):
            weights[_TABLE] = self._instructions.embeddings
            config = replace(config, instructions=self._instructions.instructions)
        return write_checkpoint(
            path, kind=KIND, config=config, spec=self._spec, transforms=Pipeline(()), weights=weights, card=card
        )

    def to(self, device: str) -> VGPSCritic:
        """Move the weights; returns this critic."""
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise ConfigError(f"device {device!r}: no CUDA device is here: leave the option out")
        self.network.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.network.parameters()).device

    @property
    def spec(self) -> CriticSpec:
        return self._spec

    @property
    def version(self) -> str:
        return self._version

    @torch.inference_mode()
    def encode(self, observations: Batch) -> Float[Tensor, "m b n"]:
        """The newest image and the instruction of each row; raises `SpecError` for an instruction nobody can encode."""
        self._spec.observation.validate_batch(observations)
        images = observations.arrays[self.config.key][:, -1]
        size = self.config.network.image_size
        if size is not None:
            images = resize_lanczos3(images, size)
        text = self._text([task.instruction for task in observations.tasks] or [""] * len(observations))
        return self.network.embed(torch.from_numpy(np.array(images)).to(self.device), text)

    @torch.inference_mode()
    def score(
        self, context: Float[Tensor, "m b n"], actions: Float[np.ndarray, "b k 1 a"]
    ) -> Float[np.ndarray, "m b k"]:
        """Q per member of one step; raises `UnsupportedError` for more."""
        self._check(context, actions)
        mapped = self.config.bounds.to_critic(actions[:, :, 0]).astype(np.float32)
        return self.network.score(context, torch.from_numpy(mapped).to(self.device)).cpu().numpy()

    def _text(self, instructions: list[str]) -> Float[Tensor, "b t"] | None:
        if self._instructions is None:
            return None
        return torch.from_numpy(self._instructions(instructions)).to(self.device)

    def _check(self, context: Float[Tensor, "m b n"], actions: Array) -> None:
        self._spec.action.check_shape(actions)
        if actions.ndim != 4 or actions.shape[0] != context.shape[1]:
            raise SpecError(f"actions: got shape {actions.shape}, expected (B={context.shape[1]}, K, E, A)")
        if actions.shape[2] != 1:
            raise UnsupportedError(
                f"{actions.shape[2]} steps were handed to a critic that scores the first action alone: "
                "hand it spec.scored_steps(executed) steps"
            )


def build(arrays: Iterable[tuple[str, Array]], stated: Stated, source: str) -> ValueNetwork:
    """The network of published parameters (names below `modules_critic`)."""
    shapes: dict[str, tuple[int, ...]] = {}

    def noted() -> Iterator[tuple[str, Array]]:
        for name, value in arrays:
            shapes[name] = value.shape
            yield name, value

    tensors = to_torch(noted())
    try:
        # Nothing is initialised on "meta": every parameter is about to be put there.
        with torch.device("meta"):
            network = ValueNetwork(infer_network(shapes, stated))
        put(network, tensors)
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from error
    return network


def _version(network: ValueNetwork) -> str:
    """A hash of the weights."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().numpy())
    return digest.hexdigest()[:12]
