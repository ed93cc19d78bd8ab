"""How K candidates are drawn from each of LeRobot's policy classes. Runs in LeRobot's environment only.

    diffusion           observation encoded once; K initial noises; DDPM's later noise from one generator per candidate
    smolvla, pi0, pi05  K initial noises; the observation goes through the model once per candidate, in one batch.
                        Untested: no weights were at hand
    act                 deterministic
    vqbet, pi0_fast     draw from torch's global generator, which is seeded for the call. pi0_fast is untested

LeRobot's own queues of frames and actions are passed by: the history comes with the observation, and the chunk is the part that
LeRobot would have put into its queue.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from steer.errors import CheckpointError

Inputs = dict[str, Tensor]
"""What comes out of the pre-processor: features and token ids, [B, T, ...]; families without history drop T."""


@dataclass(frozen=True)
class Draw:
    """Where the randomness of one call comes from, for B * K rows.

    noise: initial noise [B * K, ...], or None for a family that takes none.
    seeds: of each row's later noise; empty: torch's global generator, seeded with `shared`.
    """

    noise: Tensor | None
    seeds: Sequence[int]
    shared: int


class Sampler(Protocol):
    """One family. `window` T, `horizon` H; `noise_shape` of one candidate, None for a family that takes no noise."""

    window: int
    horizon: int
    stochastic: bool
    seeding: Literal["request", "call", "none"]
    temperature: bool
    noise_shape: tuple[int, ...] | None

    def encode(self, inputs: Inputs) -> Any:
        """What does not depend on the candidate."""
        ...

    def generate(self, encoded: Any, count: int, draw: Draw) -> Tensor:
        """Normalised chunks [B * K, H, A], the K of one observation next to each other."""
        ...


class DiffusionSampler:
    """LeRobot's DiffusionPolicy. Temperature scales the initial noise, which is all there is of it in DDIM."""

    stochastic = True
    seeding: Literal["request", "call", "none"] = "request"

    def __init__(self, policy: Any) -> None:
        config = policy.config
        self._model, self._cameras = policy.diffusion, tuple(config.image_features)
        self.window, self.horizon = config.n_obs_steps, config.n_action_steps
        self.temperature = config.noise_scheduler_type == "DDIM"
        self.noise_shape: tuple[int, ...] | None = (config.horizon, config.action_feature.shape[0])

    def encode(self, inputs: Inputs) -> Tensor:
        batch = dict(inputs)
        if self._cameras:
            batch["observation.images"] = torch.stack([inputs[key] for key in self._cameras], dim=2)
        # Private there, but the one place that encodes without sampling, and the version is pinned.
        encoded: Tensor = self._model._prepare_global_conditioning(batch)
        return encoded

    def generate(self, encoded: Tensor, count: int, draw: Draw) -> Tensor:
        condition = encoded.repeat_interleave(count, dim=0)
        generators = None if not draw.seeds else [torch.Generator().manual_seed(seed) for seed in draw.seeds]
        torch.manual_seed(draw.shared)
        chunk: Tensor = self._model.conditional_sample(
            len(condition), global_cond=condition, generator=generators, noise=draw.noise
        )
        return chunk[:, self.window - 1 :][:, : self.horizon]


class _Chunked:
    """Families whose `predict_action_chunk` takes one frame and touches no queue."""

    window = 1
    noise_shape: tuple[int, ...] | None = None

    def __init__(self, policy: Any) -> None:
        if getattr(policy.config, "n_obs_steps", 1) != 1:
            raise CheckpointError(f"{policy.name} with {policy.config.n_obs_steps} frames of history: only 1 is known")
        self._policy = policy
        self.horizon: int = policy.config.n_action_steps

    def encode(self, inputs: Inputs) -> Inputs:
        return {key: value[:, 0] for key, value in inputs.items()}

    def generate(self, encoded: Inputs, count: int, draw: Draw) -> Tensor:
        torch.manual_seed(draw.shared)
        extra = {} if draw.noise is None else {"noise": draw.noise}
        chunk: Tensor = self._policy.predict_action_chunk(_repeat(encoded, count), **extra)
        return chunk[:, : self.horizon]


class ActSampler(_Chunked):
    """ACT: at inference its latent is zero. Temporal ensembling, a rule for executing chunks, is not applied."""

    stochastic = False
    seeding: Literal["request", "call", "none"] = "request"
    temperature = False

    def __init__(self, policy: Any) -> None:
        super().__init__(policy)
        if policy.config.temporal_ensemble_coeff is not None:
            self.horizon = policy.config.chunk_size


class FlowSampler(_Chunked):
    """SmolVLA, pi0 and pi0.5: flow matching from noise of the padded action size."""

    stochastic = True
    seeding: Literal["request", "call", "none"] = "request"
    temperature = True

    def __init__(self, policy: Any) -> None:
        super().__init__(policy)
        self.noise_shape = (policy.config.chunk_size, policy.config.max_action_dim)


class FastSampler(_Chunked):
    """pi0-FAST: greedy tokens unless its configuration says a temperature."""

    seeding: Literal["request", "call", "none"] = "call"
    temperature = False

    def __init__(self, policy: Any) -> None:
        super().__init__(policy)
        self.stochastic = policy.config.temperature > 0


class VqBetSampler:
    """VQ-BeT: codes drawn from torch's global generator at the configured softmax temperature."""

    stochastic = True
    seeding: Literal["request", "call", "none"] = "call"
    temperature = False
    noise_shape: tuple[int, ...] | None = None

    def __init__(self, policy: Any) -> None:
        config = policy.config
        self._model, self._cameras = policy.vqbet, tuple(config.image_features)
        self.window, self.horizon = config.n_obs_steps, config.action_chunk_size

    def encode(self, inputs: Inputs) -> Inputs:
        images = torch.stack([inputs[key] for key in self._cameras], dim=2)
        return {**inputs, "observation.images": images}

    def generate(self, encoded: Inputs, count: int, draw: Draw) -> Tensor:
        torch.manual_seed(draw.shared)
        chunk: Tensor = self._model(_repeat(encoded, count), rollout=True)
        return chunk[:, : self.horizon]


SAMPLERS: Mapping[str, Callable[[Any], Sampler]] = {
    "diffusion": DiffusionSampler,
    "act": ActSampler,
    "vqbet": VqBetSampler,
    "smolvla": FlowSampler,
    "pi0": FlowSampler,
    "pi05": FlowSampler,
    "pi0_fast": FastSampler,
}
"""Type in `config.json` -> how it is sampled; a type that is not here is refused."""


def candidate_seeds(seeds: np.ndarray, count: int) -> list[int]:
    """One seed for each (request, k), for torch's generators."""
    pairs = [(int(seed) % 2**64, k) for seed in seeds for k in range(count)]
    return [_mix(*pair) for pair in pairs]


def call_seed(seeds: np.ndarray) -> int:
    """One seed for a whole call."""
    return _mix(*(int(seed) % 2**64 for seed in seeds))


def _mix(*numbers: int) -> int:
    # torch takes 64 bits with a sign.
    return int(np.random.SeedSequence(list(numbers)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _repeat(inputs: Inputs, count: int) -> Inputs:
    """Each row K times, next to each other."""
    return {key: value.repeat_interleave(count, dim=0) for key, value in inputs.items()}
