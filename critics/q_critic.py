"""`QCritic`: a trained Q ensemble as `steer.critic.Critic`.

Reads the newest frame of one observation vector. A state is encoded once (transforms, state features, the state's share of the
first layer), then any number of candidates is scored in one batch.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from critics.checkpoints import load_weights, weights_of
from critics.config import CriticConfig, make_network
from critics.q_network import Embedded, QNetwork, State
from steer.checkpoints import read_checkpoint, require_kind, write_checkpoint
from steer.critic import CriticSpec
from steer.errors import SpecError, UnsupportedError
from steer.observation import Batch
from steer.serial import from_json
from steer.spec import Array
from steer.transforms import Pipeline

KIND = "q"


class QCritic:
    """Scores chunks of one prefix length. See the module's header."""

    def __init__(
        self,
        config: CriticConfig,
        spec: CriticSpec,
        transforms: Pipeline,
        network: QNetwork,
        version: str = "untrained",
    ) -> None:
        self.config = config
        self.transforms = transforms
        self.network = network.eval()
        self._spec = spec
        self._version = version

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> QCritic:
        """Read a checkpoint folder; raises `CheckpointError` or `SpecError` where it does not fit."""
        checkpoint = read_checkpoint(path)
        require_kind(checkpoint, KIND)
        config = from_json(CriticConfig, checkpoint.config, f"{path}: config")
        spec = from_json(CriticSpec, checkpoint.spec, f"{path}: spec")
        network = make_network(config, spec, checkpoint.transforms)
        load_weights(network, checkpoint)
        return cls(config, spec, checkpoint.transforms, network.to(device), checkpoint.version)

    def save(self, path: Path, card: str = "") -> str:
        """Write a checkpoint folder; returns its version."""
        weights = weights_of(self.network)
        return write_checkpoint(
            path, kind=KIND, config=self.config, spec=self._spec, transforms=self.transforms, weights=weights, card=card
        )

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

    def encode(self, observations: Batch) -> Embedded:
        """The candidate-free part of B observations."""
        self._spec.observation.validate_batch(observations)
        key = self.config.key
        state = make_state(self.transforms, key, observations.arrays[key][:, -1]).to(self.device)
        # no_grad and not inference_mode: gradient refinement climbs through what is kept here.
        with torch.no_grad():
            return self.network.embed(state)

    @torch.inference_mode()
    def score(self, context: Embedded, actions: Float[np.ndarray, "b k e a"]) -> Float[np.ndarray, "m b k"]:
        """Q per member; raises `UnsupportedError` for another prefix than the trained one."""
        self._check(context, actions)
        return self.network.score(context, torch.from_numpy(np.array(actions)).to(self.device)).cpu().numpy()

    def score_tensor(self, context: Embedded, actions: Float[Tensor, "b k e a"]) -> Float[Tensor, "m b k"]:
        """Like `score`, differentiable in the actions."""
        return self.network.score(context, actions)

    def _check(self, context: Embedded, actions: Array) -> None:
        self._spec.action.check_shape(actions)
        if actions.ndim != 4 or actions.shape[0] != context.raw.shape[0]:
            raise SpecError(f"actions: got shape {actions.shape}, expected (B={context.raw.shape[0]}, K, E, A)")
        if actions.shape[2] not in self._spec.prefixes:
            raise UnsupportedError(
                f"{actions.shape[2]} steps were handed to a critic that scores {list(self._spec.prefixes)}: "
                "hand it spec.scored_steps(executed) steps"
            )


def make_state(transforms: Pipeline, key: str, raw: Float[np.ndarray, "b n"]) -> State:
    """Raw and normalised tensors of B state vectors."""
    normalised = transforms.observe({key: raw})[key]
    return State(torch.from_numpy(np.array(raw, np.float32)), torch.from_numpy(np.array(normalised, np.float32)))
