"""`OpenVlaPolicy`: a published OpenVLA or OpenVLA-OFT folder as a policy.

Such folders state neither units nor frames of their actions. A `robot.json` (a `steer.robot.RobotSpec`) in the folder does; without
it the action spec is drafted from the statistics, and what they do not say is "unknown".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from policies.openvla.evaluation_images import prepare
from policies.openvla.heads import Head
from policies.openvla.images import ImageProcessor
from policies.openvla.model import OpenVlaModel
from policies.openvla.statistics import Statistics
from policies.openvla.tokens import PromptTokenizer
from steer.errors import SpecError
from steer.observation import Batch, Task
from steer.policy import PolicySpec


@dataclass(frozen=True)
class Inputs:
    """How an observation becomes the model's input.

    views: image keys, in the model's order; state: key of the proprioception, "" where the model has none.
    """

    views: tuple[str, ...]
    state: str
    images: ImageProcessor
    prompts: PromptTokenizer
    proprio: Statistics | None = None
    evaluation_crop: bool = False

    def pixels(self, batch: Batch) -> Float[Tensor, "b v c h w"]:
        """The newest frame of every view."""
        rows = [
            torch.stack([self._pixels(batch.arrays[key][row, -1]) for key in self.views]) for row in range(len(batch))
        ]
        return torch.stack(rows)

    def _pixels(self, image: UInt8[np.ndarray, "h w 3"]) -> Float[Tensor, "c h2 w2"]:
        return self.images.pixels(prepare(image, self.images.size) if self.evaluation_crop else image)

    def states(self, batch: Batch) -> Float[np.ndarray, "b s"] | None:
        """The newest proprioception in [-1, 1]."""
        if self.proprio is None:
            return None
        return self.proprio.to_model(batch.arrays[self.state][:, -1].astype(np.float64))

    def tokens(self, tasks: Sequence[Task]) -> list[Int[np.ndarray, " n"]]:
        return [self.prompts.encode(task.instruction) for task in tasks]


class OpenVlaPolicy:
    """Implements `steer.policy.Policy`; see there for the contract. Candidate 0 is the greedy action, whatever the seed."""

    def __init__(
        self, spec: PolicySpec, version: str, model: OpenVlaModel, head: Head, inputs: Inputs, statistics: Statistics
    ) -> None:
        self.spec = spec
        self.version = version
        self.model, self.head, self.inputs = model, head, inputs
        self._statistics = statistics

    @torch.inference_mode()
    def encode(self, observations: Batch) -> Any:
        """Vision, projection and (where the head allows it) the language model's prefix, once for all candidates."""
        self.spec.observation.validate_batch(observations)
        tasks = observations.tasks or (Task(),) * len(observations)
        prompts = self.inputs.tokens(tasks)
        patches = self.model.project(self.inputs.pixels(observations))
        return len(observations), self.head.encode(patches, prompts, self.inputs.states(observations))

    @torch.inference_mode()
    def sample(
        self,
        context: Any,
        num_samples: int,
        seeds: Int[np.ndarray, " b"],
        temperature: float = 1.0,
        committed: Float[np.ndarray, "b d a"] | None = None,
    ) -> Float[np.ndarray, "b k h a"]:
        """K chunks per observation; temperature divides the logits, at 0 all candidates are the greedy one."""
        self.spec.check_request(num_samples, temperature, 0 if committed is None else committed.shape[1])
        batch, encoded = context
        if len(seeds) != batch:
            raise SpecError(f"seeds: got {len(seeds)}, expected one for each of the {batch} observations")
        values = self.head.sample(encoded, num_samples, np.asarray(seeds), temperature)
        actions, _ = self.spec.action.clip(self._statistics.to_robot(values).astype(np.float32))
        return actions


def checkpoint_files(path: Path) -> list[Path]:
    """What a published folder's version depends on: weights, heads and every JSON file."""
    return [
        file
        for file in sorted(path.iterdir())
        if file.is_file() and file.suffix in (".safetensors", ".pt", ".json") and file.name != "robot.json"
    ]
