"""Trains LeRobot's own DiffusionPolicy on one of our episode stores. Runs in LeRobot's environment only.

    .venv-lerobot/bin/python -m policies.lerobot.train --store=runs/demo/episodes --out=runs/lerobot/pretrained_model

What it writes is a checkpoint as LeRobot writes it, with its normalisation processors, and our sidecar `steer.json`, so that
`lerobot:OUT` can be steered by a critic of the same robot. One vector of the store is taken apart into the two features that
LeRobot wants of a policy without cameras: its robot's state and its environment's.
"""

from __future__ import annotations

import json
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from policies.lerobot.features import SIDECAR, Sidecar, Source
from policies.lerobot.shims import install
from steer.data import ChunkSampler, EpisodeStore, Frames, load_frames
from steer.errors import ConfigError
from steer.serial import to_json
from steer.spec import Array

install()

import draccus  # type: ignore[import-not-found]  # noqa: E402  of LeRobot's environment, as all that follows
import torch  # noqa: E402
from lerobot.configs.types import FeatureType, NormalizationMode, PolicyFeature  # type: ignore[import-not-found]  # noqa: E402
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig  # type: ignore[import-not-found]  # noqa: E402
from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy  # type: ignore[import-not-found]  # noqa: E402
from lerobot.policies.factory import make_pre_post_processors  # type: ignore[import-not-found]  # noqa: E402
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn  # noqa: E402

STATE, ENVIRONMENT, ACTION = "observation.state", "observation.environment_state", "action"
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Recipe:
    """store, out: folders. key: the vector to learn from; robot_entries: prefixes of its entries that are the robot's own."""

    store: Path
    out: Path
    key: str = "state"
    robot_entries: list[str] = field(default_factory=lambda: ["ee.", "gripper."])
    horizon: int = 8
    n_action_steps: int = 8
    down_dims: tuple[int, ...] = (32, 64)
    kernel_size: int = 3
    prediction_type: str = "sample"
    num_train_timesteps: int = 50
    num_inference_steps: int = 8
    steps: int = 4000
    batch_size: int = 256
    learning_rate: float = 1e-3
    ema_decay: float = 0.995
    seed: int = 0
    threads: int = 1


def sources_of(recipe: Recipe, frames: Frames) -> dict[str, Source]:
    """Which entries of the vector go into which feature."""
    names = frames.robot.observation[recipe.key].names
    ours = tuple(name for name in names if name.startswith(tuple(recipe.robot_entries)))
    rest = tuple(name for name in names if name not in ours)
    if not ours or not rest:
        raise ConfigError(
            f"{recipe.key!r} has the entries {list(names)}, and {recipe.robot_entries} leave one of two features empty: "
            "LeRobot's diffusion policy wants the robot's state and, without cameras, its environment's"
        )
    return {STATE: Source(recipe.key, ours), ENVIRONMENT: Source(recipe.key, rest)}


def columns(frames: Frames, source: Source, values: Array) -> Array:
    """The entries of a source, [..., n]."""
    spec = frames.robot.observation[source.key]
    return values[..., [spec.index(name) for name in source.entries]]


def statistics(frames: Frames, sources: dict[str, Source], floor: float = 1e-2) -> dict[str, dict[str, Array]]:
    """Ranges that become [-1, 1]: of the data for observations, of the action spec for actions.

    floor: least half range; an entry that never moved would turn rounding into a large number.
    """
    ranges = {}
    for name, source in sources.items():
        values = columns(frames, source, frames.observations[source.key])
        low, high = values.min(axis=0), values.max(axis=0)
        centre, half = (high + low) / 2, np.maximum((high - low) / 2, floor)
        ranges[name] = {"min": (centre - half).astype(np.float32), "max": (centre + half).astype(np.float32)}
    action = frames.robot.action
    return {**ranges, ACTION: {"min": action.low, "max": action.high}}


def configuration(recipe: Recipe, frames: Frames, sources: dict[str, Source]) -> Any:
    """LeRobot's configuration. One frame of history: its chunks then start where those of our sampler do."""
    mode = NormalizationMode.MIN_MAX
    return DiffusionConfig(
        n_obs_steps=1,
        horizon=recipe.horizon,
        n_action_steps=recipe.n_action_steps,
        input_features={
            STATE: PolicyFeature(FeatureType.STATE, (len(sources[STATE].entries),)),
            ENVIRONMENT: PolicyFeature(FeatureType.ENV, (len(sources[ENVIRONMENT].entries),)),
        },
        output_features={ACTION: PolicyFeature(FeatureType.ACTION, (frames.robot.action.size,))},
        normalization_mapping={"STATE": mode, "ENV": mode, "ACTION": mode},
        down_dims=recipe.down_dims,
        kernel_size=recipe.kernel_size,
        noise_scheduler_type="DDIM",
        prediction_type=recipe.prediction_type,
        num_train_timesteps=recipe.num_train_timesteps,
        num_inference_steps=recipe.num_inference_steps,
        optimizer_lr=recipe.learning_rate,
        scheduler_warmup_steps=min(200, recipe.steps // 10),
        device="cpu",
        push_to_hub=False,
    )


def train(recipe: Recipe) -> None:
    """Learn, and write the averaged weights."""
    torch.set_num_threads(recipe.threads)
    random.seed(recipe.seed)
    torch.manual_seed(recipe.seed)
    frames = load_frames(EpisodeStore.open(recipe.store))
    sources = sources_of(recipe, frames)
    config = configuration(recipe, frames, sources)
    pre, post = make_pre_post_processors(config, dataset_stats=statistics(frames, sources))
    policy = DiffusionPolicy(config)
    averaged = AveragedModel(policy, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema_decay))  # type: ignore[no-untyped-call]  # torch's
    optimizer = config.get_optimizer_preset().build(policy.get_optim_params())
    scheduler = config.get_scheduler_preset().build(optimizer, recipe.steps)
    sampler = ChunkSampler(frames, recipe.horizon, 1, recipe.batch_size, recipe.seed, (recipe.key,))
    policy.train()
    for step in range(1, recipe.steps + 1):
        loss, _ = policy.forward(batch_of(frames, sources, sampler, pre))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        averaged.update_parameters(policy)
        if step % 200 == 0 or step == recipe.steps:
            _log.info(
                "trained", step=step, of=recipe.steps, loss=round(loss.item(), 5), cpu_s=round(time.process_time(), 1)
            )
    save(recipe, averaged.module, (pre, post), Sidecar(frames.robot.action, frames.robot.observation.arrays, sources))


def batch_of(frames: Frames, sources: dict[str, Source], sampler: ChunkSampler, pre: Any) -> Any:
    """One batch, normalised: features [B, 1, n], action [B, H, A]."""
    chunks = sampler.sample()
    batch = {name: columns(frames, source, chunks.arrays[source.key]) for name, source in sources.items()}
    tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in batch.items()}
    tensors[ACTION] = torch.from_numpy(chunks.actions)
    return {**pre(tensors), "action_is_pad": torch.zeros(chunks.actions.shape[:2], dtype=torch.bool)}


def save(recipe: Recipe, policy: Any, processors: tuple[Any, Any], sidecar: Sidecar) -> None:
    """The folder as LeRobot writes it, and the sidecar."""
    recipe.out.mkdir(parents=True, exist_ok=True)
    policy.save_pretrained(recipe.out)
    for processor in processors:
        processor.save_pretrained(recipe.out)
    (recipe.out / SIDECAR).write_text(json.dumps(to_json(sidecar), indent=1) + "\n")
    _log.info("wrote", out=str(recipe.out))


if __name__ == "__main__":
    train(draccus.parse(Recipe))
