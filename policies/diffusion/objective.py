"""`DiffusionObjective`: noise prediction on recorded chunks, with AdamW, warm-up, cosine, and an average of the weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from policies.diffusion.config import DiffusionConfig
from policies.diffusion.network import DiffusionNetwork
from policies.diffusion.policy import KIND
from policies.diffusion.schedule import alphas_cumprod
from steer.checkpoints import write_checkpoint
from steer.normalize import NormalizeActions, fit_vector
from steer.observation import ObservationSpec
from steer.policy import PolicySpec
from steer.training.objective import Metrics, State, backward, share
from steer.transforms import NearField, Pipeline

if TYPE_CHECKING:
    from accelerate import Accelerator

    from steer.data.frames import Frames
    from steer.data.sampling import ChunkBatch


class DiffusionObjective:
    """Trains a diffusion policy. Implements `steer.training.objective.Objective` and `Placed`."""

    def __init__(self, config: DiffusionConfig, frames: Frames, seed: int = 0) -> None:
        from diffusers.training_utils import EMAModel

        self.config = config
        self.spec = policy_spec(config, frames)
        self.transforms = fit_transforms(config, self.spec, frames)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = DiffusionNetwork(config, self.spec, self.transforms, alphas_cumprod(config.diffusion_steps))
        self.optimizer: Any = torch.optim.AdamW(
            self.network.parameters(), config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.ema = EMAModel(self.network.parameters(), decay=config.ema_decay, foreach=True)
        # Noise is drawn on the CPU whatever the device: the same run everywhere, up to rounding.
        self._generator = torch.Generator().manual_seed(seed)
        self._updates = 0
        self._loss: Any = self.network
        self._accelerator: Accelerator | None = None

    def prepare(self, accelerator: Accelerator) -> None:
        """Move network and optimiser to the accelerator's device, precision and processes."""
        self._accelerator = accelerator
        self._loss, self.optimizer = accelerator.prepare(self.network, self.optimizer)
        self.ema.to(accelerator.device)

    def step(self, batch: ChunkBatch) -> Metrics:
        """One update of the network and of its average."""
        rate = self.config.learning_rate * rate_factor(self._updates, self.config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss, info = self._loss(*self._inputs(batch))
        self.optimizer.zero_grad()
        backward(loss, self._accelerator)
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.grad_clip)
        self.optimizer.step()
        self.ema.step(self.network.parameters())
        self._updates += 1
        return {**info, "grad_norm": norm, "learning_rate": rate}

    def state(self) -> State:
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.state_dict(),
            "generator": self._generator.get_state(),
            "updates": self._updates,
        }

    def restore(self, state: State) -> None:
        self.network.load_state_dict(state["network"])
        # Torch would keep the very tensors it is given.
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self.ema.load_state_dict(dict(state["ema"]))
        if self._accelerator is not None:
            self.ema.to(self._accelerator.device)
        self._generator.set_state(state["generator"])
        self._updates = state["updates"]

    def save(self, path: Path) -> str:
        """Write the averaged weights as a checkpoint folder; returns its version."""
        return write_checkpoint(
            path,
            kind=KIND,
            config=self.config,
            spec=self.spec,
            transforms=self.transforms,
            weights={name: value.cpu().numpy() for name, value in self._averaged().items()},
            card=self._card(),
        )

    def _inputs(self, batch: ChunkBatch) -> tuple[Any, ...]:
        """This process's share of the batch and of its noise, on its device."""
        actions = torch.from_numpy(self.transforms.to_model(batch.actions))
        noise = torch.randn(actions.shape, generator=self._generator)
        timesteps = torch.randint(self.config.diffusion_steps, (len(actions),), generator=self._generator)
        arrays = self.transforms.observe({key: batch.arrays[key] for key in self.spec.observation.keys})
        tensors = {key: self._share(torch.from_numpy(value)) for key, value in arrays.items()}
        mask = torch.from_numpy(batch.mask)
        return tensors, self._share(mask), self._share(actions), self._share(noise), self._share(timesteps)

    def _share(self, rows: Tensor) -> Tensor:
        return share(rows, self._accelerator)

    def _averaged(self) -> Mapping[str, Tensor]:
        weights = dict(self.network.state_dict())
        for (name, _), average in zip(self.network.named_parameters(), self.ema.shadow_params, strict=True):
            weights[name] = average
        return weights

    def _card(self) -> str:
        return (
            f"# Diffusion policy\n\nProposes {self.spec.horizon} steps of {list(self.spec.action.names)} at "
            f"{self.spec.action.rate_hz:g} Hz from {list(self.spec.observation.keys)}.\n"
            f"Trained for {self._updates} updates; the weights are their exponential average.\n"
        )


def rate_factor(update: int, config: DiffusionConfig) -> float:
    """Share of the peak learning rate at an update: linear warm-up, then a cosine down to `final_rate`."""
    if update < config.warmup_steps:
        return (update + 1) / config.warmup_steps
    progress = min((update - config.warmup_steps) / max(config.steps - config.warmup_steps, 1), 1.0)
    return config.final_rate + (1 - config.final_rate) * 0.5 * (1 + math.cos(math.pi * progress))


def policy_spec(config: DiffusionConfig, frames: Frames) -> PolicySpec:
    """What a policy trained on these frames will say of itself. Raises `SpecError` for a key the robot does not give."""
    robot = frames.robot
    arrays = tuple(robot.observation[key] for key in config.keys)
    observation = ObservationSpec(arrays, config.window)
    return PolicySpec(observation, robot.action, config.horizon, inpaints=True)


def fit_transforms(config: DiffusionConfig, spec: PolicySpec, frames: Frames) -> Pipeline:
    """Near-field entries, then the statistics of the data, then actions to [-1, 1] by their bounds."""
    transforms: list[Any] = []
    for array in spec.observation.arrays:
        if len(array.shape) != 1:
            continue
        values = frames.observations[array.name]
        near = NearField.of(spec.observation, array.name, config.near_field_m or 1.0)
        if config.near_field_m and near.entries:
            transforms.append(near)
            values = near.observe({array.name: values})[array.name]
        transforms.append(fit_vector(array.name, values))
    return Pipeline((*transforms, NormalizeActions.of(spec.action)))
