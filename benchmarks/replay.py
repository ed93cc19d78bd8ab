"""Replay from a store of 10,000 episodes with images: how fast it is taken in round by round and sampled, and in what memory.

    python -m benchmarks.replay [--json]

A few recorded episodes are repeated by hard links to their segment, so that the store is large to read and small on the disk.
Memory is the process's own (anonymous); pages of mapped files are the kernel's, which takes them back when it needs room. Seconds
are those of one core.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from benchmarks.keep import keep
from steer.action import ActionAxis, ActionSpec
from steer.data.episode import Episode
from steer.data.frames import load_frames
from steer.data.sampling import ChunkSampler, TransitionSampler
from steer.data.store import EpisodeStore
from steer.observation import ObservationSpec
from steer.online.replay import Data, Replay
from steer.robot import RobotSpec
from steer.spec import Array, ArraySpec

CANDIDATES, HORIZON, PREFIX = 8, 8, 4


@dataclass(frozen=True)
class Arguments:
    """Measure replay over many episodes."""

    episodes: int = 10_000
    """Episodes of the store."""
    steps: int = 20
    """Actions per episode."""
    image: int = 64
    """Height and width of its one image, in pixels."""
    recorded: int = 50
    """Different episodes; the others repeat them."""
    round_episodes: int = 100
    """Episodes that are taken in at a time."""
    batch_size: int = 64
    """Rows per batch."""
    batches: int = 3000
    """Batches of each sampler."""
    json: bool = False
    """Print only the JSON object."""
    out: Path | None = Path("benchmarks/results/replay.json")
    """Where the result is kept."""

    def run(self) -> None:
        torch.set_num_threads(1)
        with tempfile.TemporaryDirectory(prefix="steer-replay-") as folder:
            result = measure(self, Path(folder))
        if self.out is not None:
            keep(self.out, result)
        if not self.json:
            for name, value in result.items():
                print(f"{name:<24} {value}")
        print(json.dumps(result))


def measure(arguments: Arguments, folder: Path) -> dict[str, Any]:
    """All figures, see the module."""
    store = make_store(arguments, folder / "store")
    replay, rounds = take_in(store, arguments.round_episodes)
    assert replay.online is not None
    data = replay.online
    samplers = {
        "chunks": ChunkSampler(data.frames, HORIZON, 1, arguments.batch_size, 0),
        "transitions": TransitionSampler(
            data.frames, PREFIX, 0.98, 1, arguments.batch_size, 0, data.proposals, keys=("image", "state")
        ),
    }
    tenth = max(1, len(rounds) // 10)
    return {
        "episodes": len(store),
        "frames": len(data.frames),
        "image_gb": round(data.frames.observations["image"].nbytes / 1e9, 2),
        "round_over_first": round(statistics.median(rounds[-tenth:]) / statistics.median(rounds[:tenth]), 2),
        "round_ms": round(1e3 * statistics.median(rounds), 1),
        "batch_size": arguments.batch_size,
        **{name: _sampled(sampler, arguments.batches) for name, sampler in samplers.items()},
    }


def take_in(store: EpisodeStore, round_episodes: int) -> tuple[Replay, list[float]]:
    """The replay after many rounds, and the seconds that each took beyond reading its episodes from the store."""
    replay, seconds = Replay(None, 0.0), []
    rng = np.random.default_rng(0)
    for first in range(0, len(store), round_episodes):
        frames = load_frames(store, range(first, min(first + round_episodes, len(store))))
        shape = (len(frames), CANDIDATES, HORIZON, store.robot.action.size)
        proposals = rng.uniform(-0.1, 0.1, shape).astype(np.float32)
        began = time.process_time()
        replay.grow(Data(frames, proposals))
        seconds.append(time.process_time() - began)
    return replay, seconds


def make_store(arguments: Arguments, path: Path) -> EpisodeStore:
    """Some random episodes as one segment, and links to it."""
    store = EpisodeStore.create(path, _robot(arguments.image))
    rng = np.random.default_rng(0)
    with store.writer(arguments.recorded) as writer:
        for _ in range(arguments.recorded):
            writer.add(_episode(arguments, rng))
    (segment,) = (path / "segments").iterdir()
    for number in range(1, arguments.episodes // arguments.recorded):
        shutil.copytree(segment, segment.with_name(f"{number:06d}-000"), copy_function=os.link)
    store.refresh()
    return store


def memory_mb() -> dict[str, float]:
    """This process's resident memory: its own, and pages of mapped files."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        name: round(int(status[key].split()[0]) / 1024, 1) for name, key in (("own", "RssAnon"), ("mapped", "RssFile"))
    }


def _sampled(sampler: ChunkSampler | TransitionSampler, batches: int) -> dict[str, Any]:
    """Batches per second and memory, in ten stretches; the first one also finds the data for the first time."""
    speeds, memory = [], [memory_mb()]
    for _ in range(10):
        began = time.process_time()
        for _ in range(batches // 10):
            sampler.sample()
        speeds.append((batches // 10) / (time.process_time() - began))
        memory.append(memory_mb())
    own = [used["own"] for used in memory]
    return {
        "batches_per_s": round(statistics.median(speeds), 1),
        "slowest": round(min(speeds), 1),
        "own_mb_before": own[0],
        "own_mb_after": own[-1],
        "own_mb_highest": max(own),
        "mapped_mb_after": memory[-1]["mapped"],
    }


def _robot(size: int) -> RobotSpec:
    axes = tuple(ActionAxis(name, "m", -0.1, 0.1) for name in ("dx", "dy", "dz"))
    action = ActionSpec(
        axes, kind="delta", frame="base", reference="measured", rotation="none", gripper="none", rate_hz=20.0
    )
    arrays = (ArraySpec("image", "uint8", (size, size, 3)), ArraySpec("state", "float32", (8,)))
    return RobotSpec("camera", action, ObservationSpec(arrays))


def _episode(arguments: Arguments, rng: np.random.Generator) -> Episode:
    frames, size = arguments.steps + 1, arguments.image
    observations: dict[str, Array] = {
        "image": rng.integers(0, 256, (frames, size, size, 3), np.uint8),
        "state": rng.normal(size=(frames, 8)).astype(np.float32),
    }
    rewards = np.zeros(arguments.steps, np.float32)
    rewards[-1] = success = bool(rng.integers(2))
    actions = rng.uniform(-0.1, 0.1, (arguments.steps, 3)).astype(np.float32)
    return Episode(observations, actions, rewards, success, not success, success, "simulator")


if __name__ == "__main__":
    tyro.cli(Arguments).run()
