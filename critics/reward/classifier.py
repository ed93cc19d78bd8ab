"""`RewardClassifier`: a trained network as `steer.classifier.SuccessClassifier`, and how its threshold is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float

from critics.checkpoints import load_weights, weights_of
from critics.reward.config import RewardConfig
from critics.reward.network import RewardNetwork, inputs, make_network
from steer.checkpoints import read_checkpoint, require_kind, write_checkpoint
from steer.classifier import ClassifierSpec
from steer.errors import ConfigError, SpecError
from steer.serial import from_json
from steer.spec import Array
from steer.transforms import Pipeline

KIND = "reward"

# Frames per pass through the network: large enough for its overhead, small enough for images.
_BATCH = 256


class RewardClassifier:
    """See the module."""

    def __init__(
        self,
        config: RewardConfig,
        spec: ClassifierSpec,
        transforms: Pipeline,
        network: RewardNetwork,
        version: str = "untrained",
    ) -> None:
        self.config, self.transforms = config, transforms
        self.network = network.eval()
        self._spec, self._version = spec, version

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> RewardClassifier:
        """Read a checkpoint folder; raises `CheckpointError` or `SpecError` where it does not fit."""
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise ConfigError(f"device {device!r}: no CUDA device is here: leave the option out")
        checkpoint = read_checkpoint(path)
        require_kind(checkpoint, KIND)
        config = from_json(RewardConfig, checkpoint.config, f"{path}: config")
        spec = from_json(ClassifierSpec, checkpoint.spec, f"{path}: spec")
        network = make_network(config, spec.observation, checkpoint.transforms)
        load_weights(network, checkpoint)
        return cls(config, spec, checkpoint.transforms, network.to(device), checkpoint.version)

    def save(self, path: Path, card: str = "") -> str:
        """Write a checkpoint folder; returns its version."""
        weights = weights_of(self.network)
        return write_checkpoint(
            path, kind=KIND, config=self.config, spec=self._spec, transforms=self.transforms, weights=weights, card=card
        )

    @property
    def spec(self) -> ClassifierSpec:
        return self._spec

    @property
    def version(self) -> str:
        return self._version

    @torch.inference_mode()
    def probability(self, observations: Mapping[str, Array]) -> Float[np.ndarray, " n"]:
        """That each frame shows success; raises `SpecError` for frames that do not conform."""
        observation = self._spec.observation
        for array in observation.arrays:
            if array.name not in observations:
                raise SpecError(f"observations lack {array.name!r}; they have {sorted(observations)}: map the keys")
            array.validate(observations[array.name], leading=1)
        device = next(self.network.parameters()).device
        count = len(observations[observation.keys[0]])
        parts = []
        for start in range(0, count, _BATCH):
            rows = {key: observations[key][start : start + _BATCH] for key in observation.keys}
            vectors, images = inputs(self.config, observation, self.transforms, rows)
            logits = self.network(vectors.to(device), {key: value.to(device) for key, value in images.items()})
            parts.append(torch.sigmoid(logits).float().cpu().numpy())
        return np.concatenate(parts or [np.zeros(0, np.float32)])


def choose_threshold(
    scores: Float[np.ndarray, " n"], success: Bool[np.ndarray, " n"], false_positives: float, least: float
) -> float:
    """The least threshold that no more than this share of the failures reach, half-way to the next success above; >= `least`."""
    failures, successes = np.sort(scores[~success]), scores[success]
    allowed = int(false_positives * len(failures))
    highest = float(failures[-1 - allowed]) if len(failures) else 0.0
    above = successes[successes > highest]
    just_above = float(np.nextafter(np.float32(highest), np.float32(2)))
    return max((highest + float(above.min())) / 2 if len(above) else just_above, least)
