"""`ChunkObjective`: imitation of recorded chunks, whatever the family.

It owns AdamW with warm-up, cosine and clipped gradients, the average of the weights that is served, the generator of noise, exact
state and restore, and the checkpoint. A family supplies its network, whose `forward` is the loss, and what it draws for it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from policies.checkpoints import load_weights
from policies.config import TrainingConfig
from steer.checkpoints import Checkpoint, require_kind, write_checkpoint
from steer.errors import SpecError
from steer.normalize import NormalizeActions, fit_vector
from steer.observation import ObservationSpec
from steer.policy import PolicySpec
from steer.serial import from_json
from steer.steering import check_compatible
from steer.training.objective import Metrics, State, backward, share
from steer.transforms import NearField, Pipeline

if TYPE_CHECKING:
    from accelerate import Accelerator

    from steer.data.frames import Frames
    from steer.data.sampling import ChunkBatch

C = TypeVar("C", bound=TrainingConfig)
# So many updates after which the warm-up of an average has no more to say.
_WARM = 1_000_000


class ChunkObjective(Generic[C]):
    """Trains a policy on chunks. Implements `steer.training.objective.Objective` and `Placed`.

    A family's class names its `kind`, `title` and whether it `inpaints`, and overrides `make_network` and `draw`. The network is
    called as network(arrays, mask, actions, weights, *drawn) and returns (loss, info):

        arrays   key -> [B, T, ...]     observations after the transforms
        mask     bool[B, T]             frames that are not padding
        actions  float32[B, H, A]       chunks in the model's units, [-1, 1]
        weights  float32[B] or None     factors of the rows' losses
    """

    kind: ClassVar[str]
    title: ClassVar[str]
    inpaints: ClassVar[bool] = False

    def __init__(self, config: C, frames: Frames, seed: int = 0, start: Checkpoint | None = None) -> None:
        """start: a checkpoint of this family to continue from: its spec, transforms with their statistics, and weights are
        taken over, the sizes in `config` must be its own, and `frames` only says which robot the chunks are for.

        Raises `SpecError` where the robot does not fit, and `CheckpointError` where `start` does not.
        """
        self.config = config
        if start is None:
            self.spec = self.make_spec(frames)
            self.transforms = self.fit_transforms(frames)
        else:
            require_kind(start, self.kind)
            self.spec = _taken_over(start, config, frames)
            self.transforms = start.transforms
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network: Any = self.make_network()
        if start is not None:
            load_weights(self.network, start)
        self.optimizer: Any = torch.optim.AdamW(
            self._trained(), config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.ema = self.make_average()
        # Noise is drawn on the CPU whatever the device: the same run everywhere, up to rounding.
        self.generator = torch.Generator().manual_seed(seed)
        self._updates = 0
        self._loss: Any = self.network
        self._accelerator: Accelerator | None = None

    def make_network(self) -> nn.Module:
        """The network for `config`, `spec` and `transforms`, freshly drawn from torch's global generator."""
        raise NotImplementedError

    def make_average(self) -> Any:
        """A new average of what is trained."""
        from diffusers.training_utils import EMAModel

        average = EMAModel(self._trained(), decay=self.config.ema_decay, foreach=True)
        if not self.config.ema_warmup:
            average.optimization_step = _WARM
        return average

    def draw(self, actions: Float[Tensor, "b h a"]) -> tuple[Tensor, ...]:
        """What the loss needs beside the data, one row per chunk, from `generator`: noise, times."""
        raise NotImplementedError

    def make_spec(self, frames: Frames) -> PolicySpec:
        """What the policy will say of itself. Raises `SpecError` for a key the robot does not give."""
        robot = frames.robot
        arrays = tuple(robot.observation[key] for key in self.config.keys)
        observation = ObservationSpec(arrays, self.config.window)
        return PolicySpec(observation, robot.action, self.config.horizon, inpaints=self.inpaints)

    def fit_transforms(self, frames: Frames) -> Pipeline:
        """Near-field entries, then the statistics of the data, then actions to [-1, 1] by their bounds."""
        return fit_transforms(self.config, self.spec, frames)

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
        loss, info = self._loss(*self.inputs(batch))
        self.optimizer.zero_grad()
        backward(loss, self._accelerator)
        norm = torch.nn.utils.clip_grad_norm_(self._trained(), self.config.grad_clip)
        self.optimizer.step()
        self._average()
        self._updates += 1
        return {**info, "grad_norm": norm, "learning_rate": rate}

    def inputs(self, batch: ChunkBatch) -> tuple[Any, ...]:
        """This process's share of the batch and of what is drawn for it, on its device."""
        actions = torch.from_numpy(self.transforms.to_model(batch.actions))
        drawn = self.draw(actions)
        arrays = self.transforms.observe({key: batch.arrays[key] for key in self.spec.observation.keys})
        tensors = {key: self._share(torch.from_numpy(value)) for key, value in arrays.items()}
        mask = self._share(torch.from_numpy(batch.mask))
        weights = (
            None if batch.weights is None else self._share(torch.from_numpy(_checked(batch.weights, len(actions))))
        )
        return tensors, mask, self._share(actions), weights, *(self._share(rows) for rows in drawn)

    def state(self) -> State:
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.state_dict(),
            "generator": self.generator.get_state(),
            "updates": self._updates,
        }

    def restore(self, state: State) -> None:
        self.network.load_state_dict(state["network"])
        # Torch would keep the very tensors it is given.
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self.ema.load_state_dict(dict(state["ema"]))
        if self._accelerator is not None:
            self.ema.to(self._accelerator.device)
        self.generator.set_state(state["generator"])
        self._updates = state["updates"]

    def save(self, path: Path) -> str:
        """Write the averaged weights as a checkpoint folder; returns its version."""
        return write_checkpoint(
            path,
            kind=self.kind,
            config=self.config,
            spec=self.spec,
            transforms=self.transforms,
            weights={name: value.cpu().numpy() for name, value in self._averaged().items()},
            card=self._card(),
        )

    @torch.no_grad()
    def _average(self) -> None:
        """`EMAModel.step` in one pass over the weights, where it takes three."""
        self.ema.optimization_step += 1
        decay = self.ema.cur_decay_value = self.ema.get_decay(self.ema.optimization_step)
        weights: list[Tensor] = [*self._trained()]
        torch._foreach_lerp_(self.ema.shadow_params, weights, 1 - decay)

    def _trained(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.network.parameters() if parameter.requires_grad]

    def _share(self, rows: Tensor) -> Tensor:
        return share(rows, self._accelerator)

    def _averaged(self) -> Mapping[str, Tensor]:
        weights = dict(self.network.state_dict())
        trained = [name for name, parameter in self.network.named_parameters() if parameter.requires_grad]
        return {**weights, **dict(zip(trained, self.ema.shadow_params, strict=True))}

    def _card(self) -> str:
        return (
            f"# {self.title}\n\nProposes {self.spec.horizon} steps of {list(self.spec.action.names)} at "
            f"{self.spec.action.rate_hz:g} Hz from {list(self.spec.observation.keys)}.\n"
            f"Trained for {self._updates} updates; the weights are their exponential average.\n"
        )


def weighted_mean(losses: Float[Tensor, "b *rest"], weights: Float[Tensor, " b"] | None) -> Float[Tensor, ""]:
    """Mean over everything of each row's losses times its weight; the weights are not made to sum to one."""
    if weights is None:
        return losses.mean()
    return (losses.flatten(1).mean(dim=1) * weights).mean()


def rate_factor(update: int, config: TrainingConfig) -> float:
    """Share of the peak learning rate at an update: linear warm-up, then a cosine down to `final_rate`."""
    if update < config.warmup_steps:
        return (update + 1) / config.warmup_steps
    progress = min((update - config.warmup_steps) / max(config.steps - config.warmup_steps, 1), 1.0)
    return config.final_rate + (1 - config.final_rate) * 0.5 * (1 + math.cos(math.pi * progress))


def fit_transforms(config: TrainingConfig, spec: PolicySpec, frames: Frames) -> Pipeline:
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


def _taken_over(start: Checkpoint, config: TrainingConfig, frames: Frames) -> PolicySpec:
    """The checkpoint's spec, once config and robot are found to fit it."""
    spec = from_json(PolicySpec, start.spec, f"{start.path}: spec")
    check_compatible(frames.robot, spec, None)
    had = (spec.observation.keys, spec.observation.window, spec.horizon)
    asked = (config.keys, config.window, config.horizon)
    if asked != had:
        raise SpecError(
            f"{start.path}: was trained with (keys, window, horizon) = {had}, asked for {asked}: give its own to continue"
        )
    return spec


def _checked(weights: Float[np.ndarray, " b"], rows: int) -> Float[np.ndarray, " b"]:
    if weights.shape != (rows,):
        raise SpecError(f"weights: got shape {weights.shape}, expected one for each of the {rows} rows")
    return weights.astype(np.float32, copy=False)
