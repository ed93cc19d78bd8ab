"""`LeRobotModel`: a LeRobot checkpoint with its processors, as numpy in and numpy out. Runs in LeRobot's environment only."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from lerobot.configs.policies import PreTrainedConfig  # type: ignore[import-not-found]  # of LeRobot's environment
from lerobot.policies.factory import get_policy_class  # type: ignore[import-not-found]  # of LeRobot's environment
from torch import Tensor

from policies.lerobot.features import (
    DEFAULT_RATE_HZ,
    action_spec,
    input_features,
    observation_spec,
    read_json,
    read_sidecar,
    take,
)
from policies.lerobot.folder import check_folder
from policies.lerobot.processors import load_processors
from policies.lerobot.sampling import SAMPLERS, Draw, Inputs, call_seed, candidate_seeds
from steer.errors import CheckpointError, SpecError
from steer.noise import candidate_noise
from steer.observation import Batch
from steer.policy import PolicySpec


@dataclass(frozen=True)
class Encoded:
    """A context: what the family computed once, for `rows` observations."""

    value: Any
    rows: int


@dataclass(frozen=True)
class Options:
    """device: of torch. tokenizer: a folder instead of the checkpoint's name for it. rate_hz: where no sidecar states it."""

    device: str = "cpu"
    tokenizer: str = ""
    rate_hz: float = DEFAULT_RATE_HZ


class LeRobotModel:
    """See `steer.policy.Policy` for the contract of `encode` and `sample`."""

    def __init__(self, folder: Path, options: Options) -> None:
        """Load a `pretrained_model` folder. Raises `CheckpointError` for anything missing, misshapen, or of unknown kind."""
        kind = check_folder(folder)
        raw = read_json(folder / "config.json")
        self._device = torch.device(options.device)
        policy = _load_policy(folder, kind, options.device)
        self._sampler = SAMPLERS[kind](policy)
        self._processors = load_processors(folder, policy.config, options.device, options.tokenizer)
        sidecar = read_sidecar(folder)
        features = input_features(raw, self._processors.rename, folder / "config.json")
        observation, self._sources = observation_spec(features, self._sampler.window, sidecar)
        size = int(policy.config.action_feature.shape[0])
        action = action_spec(size, self._processors.statistics, sidecar, options.rate_hz)
        self.spec = PolicySpec(
            observation,
            action,
            self._sampler.horizon,
            stochastic=self._sampler.stochastic,
            seeding=self._sampler.seeding,
            temperature=self._sampler.temperature,
            trainable=False,
        )
        self.version = _version(folder)

    @torch.inference_mode()
    def encode(self, observations: Batch) -> Encoded:
        """Pre-process the whole window and compute what the candidates share."""
        return Encoded(self._sampler.encode(self.inputs(observations)), len(observations))

    @torch.inference_mode()
    def sample(
        self, context: Encoded, num_samples: int, seeds: Int[np.ndarray, " b"], temperature: float = 1.0
    ) -> Float[np.ndarray, "b k h a"]:
        """K chunks per observation in the robot's units, within the bounds of the spec."""
        self.spec.check_request(num_samples, temperature, 0)
        if len(seeds) != context.rows:
            raise SpecError(f"seeds: got {len(seeds)}, expected one for each of the {context.rows} observations")
        noise = None
        if self._sampler.noise_shape is not None:
            drawn = candidate_noise(seeds, num_samples, self._sampler.noise_shape) * np.float32(temperature)
            noise = torch.from_numpy(drawn).flatten(0, 1).to(self._device)
        draw = Draw(noise, candidate_seeds(seeds, num_samples), call_seed(seeds))
        chunks = self._to_robot(self._sampler.generate(context.value, num_samples, draw))
        clipped, _ = self.spec.action.clip(chunks.reshape(context.rows, num_samples, *chunks.shape[1:]))
        return clipped

    @torch.inference_mode()
    def trace(
        self, context: Encoded, noise: Float[np.ndarray, "k *shape"] | None, seed: int
    ) -> tuple[Float[np.ndarray, "k h a"], Float[np.ndarray, "k h a"]]:
        """What LeRobot's own call returns for this noise and a seeded global generator, for comparisons with it.

        Normalised chunks, and the same in the robot's units without our clipping. One observation.
        """
        count = 1 if noise is None else len(noise)
        given = None if noise is None else torch.from_numpy(noise.copy()).to(self._device)
        normalised = self._sampler.generate(context.value, count, Draw(given, (), seed))
        return normalised.cpu().numpy(), self._to_robot(normalised)

    @torch.inference_mode()
    def inputs(self, observations: Batch) -> Inputs:
        """What comes out of the pre-processor, [B, T, ...]. It knows batches but no history: every frame is a row of its batch."""
        rows, window = observations.mask.shape
        batch: dict[str, Any] = {}
        for name, source in self._sources.items():
            value = take(source, self.spec.observation, observations.arrays)
            batch[name] = _tensor(value.reshape(rows * window, *value.shape[2:])).to(self._device)
        batch["task"] = _instructions(observations, window)
        processed = self._processors.pre(batch)
        return {
            name: value.reshape(rows, window, *value.shape[1:])
            for name, value in processed.items()
            if name.startswith("observation.") and isinstance(value, Tensor)
        }

    def _to_robot(self, normalised: Tensor) -> Float[np.ndarray, "n h a"]:
        actions: Float[np.ndarray, "n h a"] = self._processors.post(normalised).float().cpu().numpy()
        return actions


def _tensor(value: np.ndarray) -> Tensor:
    """Vectors as they are; images uint8 [N, height, width, 3] as float [N, 3, height, width] in [0, 1]."""
    tensor = torch.from_numpy(value.copy())
    return tensor if tensor.dtype != torch.uint8 else tensor.permute(0, 3, 1, 2).float() / 255


def _instructions(observations: Batch, window: int) -> list[str]:
    tasks = observations.tasks
    return [task.instruction for task in tasks for _ in range(window)] if tasks else [""] * observations.mask.size


def _load_policy(folder: Path, kind: str, device: str) -> Any:
    """The policy with its weights; every tensor must be there, which LeRobot by itself would let pass."""
    try:
        config = PreTrainedConfig.from_pretrained(folder)
        config.device = device
        # Weights of the parts come from this checkpoint; none are fetched from a hub first to be overwritten.
        for name, value in (("pretrained_backbone_weights", None), ("load_vlm_weights", False)):
            if hasattr(config, name):
                setattr(config, name, value)
        return get_policy_class(kind).from_pretrained(folder, config=config, strict=True)
    except (RuntimeError, ValueError, TypeError, KeyError, OSError) as error:
        raise CheckpointError(f"{folder}: LeRobot cannot load this checkpoint: {_brief(error)}") from error


def _brief(error: Exception, limit: int = 600) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:limit]}{' ...' if len(text) > limit else ''}"


def _version(folder: Path) -> str:
    """A hash of every file that takes part in the answer."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".safetensors"):
            digest.update(path.name.encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]
