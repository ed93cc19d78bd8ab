"""Training a success classifier: `RewardObjective` turns frames of success and of failure into one update."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from critics.reward.classifier import RewardClassifier, choose_threshold
from critics.reward.config import RewardConfig
from critics.reward.network import inputs, is_image, make_network, shifted
from critics.reward.sampling import RewardBatch, examples, split
from steer.classifier import ClassifierSpec, episode_score
from steer.data.frames import Frames
from steer.normalize import fit_vector
from steer.observation import ObservationSpec
from steer.training.objective import Metrics, backward, share
from steer.transforms import NearField, Pipeline

if TYPE_CHECKING:
    from accelerate import Accelerator


class RewardObjective:
    """A classifier in training. Implements `steer.training.objective.Objective` and `Placed`."""

    def __init__(self, config: RewardConfig, frames: Frames, seed: int = 0) -> None:
        """Raises `ConfigError` where there are too few labelled episodes, or a key does not fit."""
        self.config = config
        self.observation = config.observation(frames.robot)
        self._fit, self._calibrate = split(config, frames)
        self._frames = frames
        self._examples = examples(config, frames, self._fit)
        self.transforms = _fit_transforms(config, self.observation, frames)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = make_network(config, self.observation, self.transforms)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), config.learning_rate, weight_decay=config.weight_decay
        )
        self._model: torch.nn.Module = self.network
        self._accelerator: Accelerator | None = None

    def prepare(self, accelerator: Accelerator) -> None:
        """Move network and optimiser to the accelerator's device, precision and processes."""
        self._accelerator = accelerator
        self._model, self.optimizer = accelerator.prepare(self.network, self.optimizer)

    def step(self, batch: RewardBatch) -> Metrics:
        """One update by binary cross-entropy."""
        self._model.train()
        vectors, images = inputs(self.config, self.observation, self.transforms, batch.arrays)
        vectors = vectors + self.config.vector_noise * torch.randn(vectors.shape)
        images = {key: self._rows(shifted(value, self.config.image_shift)) for key, value in images.items()}
        success = self._rows(torch.from_numpy(batch.success))
        logits = self._model(self._rows(vectors), images)
        loss = F.binary_cross_entropy_with_logits(logits, success)
        self.optimizer.zero_grad()
        backward(loss, self._accelerator)
        self.optimizer.step()
        right = ((logits > 0) == (success > 0.5)).float().mean()
        return {"loss": loss.detach(), "accuracy": right.detach()}

    def state(self) -> Mapping[str, Any]:
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])

    def classifier(self) -> RewardClassifier:
        """The classifier as it is now, with the threshold that the calibration episodes ask for."""
        config = self.config
        spec = ClassifierSpec(self.observation, 0.0, config.positive_frames, config.rule)
        scores = self._scores(RewardClassifier(config, spec, self.transforms, self.network))
        success = self._frames.success[self._calibrate]
        threshold = choose_threshold(scores, success, config.false_positives, config.least_threshold)
        return RewardClassifier(config, replace(spec, threshold=threshold), self.transforms, self.network)

    def save(self, path: Path) -> str:
        classifier = self.classifier()
        episodes, frames = self._frames.success[self._fit], self._examples
        card = (
            f"# Success classifier\n\nLooks at {', '.join(self.observation.keys)}; an episode's score is taken over "
            f"{self.config.positive_frames} frames ({self.config.rule}), from {classifier.spec.threshold:.3f} on it has succeeded. "
            f"Trained on {len(episodes)} episodes ({int(episodes.sum())} successful): {len(frames.positive)} frames of success, "
            f"{len(frames.negative)} of failure.\n"
        )
        return classifier.save(path, card)

    def _scores(self, classifier: RewardClassifier) -> np.ndarray:
        frames = self._frames
        scores = []
        for episode in self._calibrate:
            rows = slice(frames.starts[episode], frames.finals[episode] + 1)
            scores.append(
                episode_score(classifier, {key: frames.observations[key][rows] for key in self.observation.keys})
            )
        return np.array(scores)

    def _rows(self, value: Tensor) -> Tensor:
        """This process's share of the rows, on its device."""
        return share(value, self._accelerator)


def _fit_transforms(config: RewardConfig, observation: ObservationSpec, frames: Frames) -> Pipeline:
    """Near-field entries of the named displacements of each vector, then normalisation by the data's statistics."""
    transforms: list[Any] = []
    for spec in observation.arrays:
        if is_image(spec):
            continue
        near = NearField.of(frames.robot.observation, spec.name, config.near_field_m)
        steps = (near,) if near.entries else ()
        values = Pipeline(steps).observe({spec.name: frames.observations[spec.name]})[spec.name]
        transforms += [*steps, fit_vector(spec.name, values)]
    return Pipeline(tuple(transforms))
