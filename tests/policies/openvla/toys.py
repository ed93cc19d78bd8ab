"""Small checkpoints: copies of the golden ones to break, and token policies trained for a few steps."""

from __future__ import annotations

import shutil
from pathlib import Path

from policies.config import chunk_sampler
from policies.openvla.chunk_config import TokenChunkConfig
from policies.openvla.chunk_objective import TokenChunkObjective
from policies.openvla.chunk_policy import TokenChunkPolicy
from steer.data.frames import Frames
from tests.policies.toys import image_frames, random_frames

__all__ = [
    "SMALL",
    "WITH_IMAGES",
    "copy_without",
    "image_frames",
    "join_oft_heads",
    "random_frames",
    "saved",
    "trained",
]

GOLDEN = Path(__file__).parents[2] / "golden"
SHARDED = GOLDEN / "openvla/tiny-sharded-f32"
OFT = GOLDEN / "openvla_oft/tiny-oft-bf16"
SMALL = TokenChunkConfig(
    hidden=32, layers=2, heads=2, expansion=48, bins=256, steps=40, batch_size=64, warmup_steps=5, vision_width=16
)
WITH_IMAGES = TokenChunkConfig(
    keys=("state", "camera.front"),
    hidden=32,
    layers=1,
    heads=2,
    expansion=48,
    bins=32,
    image_size=28,
    vision_width=16,
    vision_layers=1,
    window=2,
    steps=40,
    batch_size=64,
    warmup_steps=5,
)


def copy_without(source: Path, target: Path, *patterns: str) -> Path:
    """A folder's copy that may be changed, without the files that match."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(*patterns))
    for file in target.iterdir():
        file.chmod(0o644)
    return target


def join_oft_heads(target: Path) -> Path:
    """The base model with the heads of the diffusion variant, as one published folder holds them; without proprioception."""
    copy_without(OFT, target, "*.pt")
    for file in (GOLDEN / "openvla_oft/tiny-oft-bf16-diffusion-heads").glob("*.pt"):
        if not file.name.startswith("proprio"):
            shutil.copy(file, target)
    return target


def trained(config: TokenChunkConfig, frames: Frames, seed: int = 0) -> TokenChunkObjective:
    """An objective after the configuration's updates."""
    objective = TokenChunkObjective(config, frames, seed)
    sampler = chunk_sampler(config, frames, seed)
    for _ in range(config.steps):
        objective.step(sampler.sample())
    return objective


def saved(objective: TokenChunkObjective, path: Path) -> TokenChunkPolicy:
    """The policy, through a checkpoint folder."""
    objective.save(path)
    return TokenChunkPolicy.load(path)
