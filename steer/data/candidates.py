"""What a policy would propose at every stored frame, computed once: a cache beside the segments.

    candidates/<policy version>-k<K>-s<seed>-t<temperature>/<segment>.npy     float32[frames of the segment, K, H, A]

A frame's seed depends on the seed, its segment and its place there, and a batch never spans two segments: what other
segments hold changes nothing, and a store that grows costs only its new segments.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from steer.data.frames import Frames, allocate, read_frames
from steer.data.store import EpisodeStore
from steer.errors import SpecError, StoreError
from steer.files import fsync_path
from steer.observation import Batch
from steer.policy import Policy
from steer.spec import Array

logger = logging.getLogger(__name__)


def candidates(
    store: EpisodeStore,
    policy: Policy,
    num_samples: int,
    seed: int = 0,
    temperature: float = 1.0,
    progress: Callable[[int, int], None] | None = None,
    batch_size: int = 512,
) -> Float[np.ndarray, "f k h a"]:
    """K samples at every frame (final ones included), in the order of `load_frames(store)`.

    progress: called with (frames done, frames in all), cached ones counted as done.
    Raises `UnsupportedError` for what the policy cannot do, `StoreError` when the cache cannot be written.
    """
    policy.spec.check_request(num_samples, temperature, committed=0)
    folder = store.sidecars / "candidates" / _key(policy.version, num_samples, seed, temperature)
    sizes = [sum(record.length + 1 for record in segment.records) for segment in store.segments]
    shape = (num_samples, policy.spec.horizon, policy.spec.action.size)
    result = allocate((sum(sizes), *shape), np.float32)
    done, first_episode = 0, 0
    for segment, size in zip(store.segments, sizes, strict=True):
        part = result[done : done + size]
        episodes = range(first_episode, first_episode + len(segment.records))
        cached = read_samples(folder / f"{segment.name}.npy", (size, *shape))
        if cached is not None:
            part[...] = cached
        elif size:
            frames = read_frames(store, episodes)
            seeds = frame_seeds(seed, segment.name, size)
            for count in _sample(policy, frames, seeds, temperature, batch_size, part):
                _tell(progress, done + count, sum(sizes))
            write_samples(folder / f"{segment.name}.npy", part)
        done += size
        first_episode += len(segment.records)
        _tell(progress, done, sum(sizes))
    return result


def sample_frames(
    policy: Policy,
    frames: Frames,
    num_samples: int,
    seed: int = 0,
    temperature: float = 1.0,
    batch_size: int = 512,
) -> Float[np.ndarray, "f k h a"]:
    """K samples at every frame, not cached. A frame's seed depends on the seed, its episode's id and its place there."""
    policy.spec.check_request(num_samples, temperature, committed=0)
    seeds = [frame_seeds(seed, name, int(length) + 1) for name, length in zip(frames.ids, frames.lengths, strict=True)]
    result = allocate((len(frames), num_samples, policy.spec.horizon, policy.spec.action.size), np.float32)
    for _ in _sample(policy, frames, np.concatenate(seeds), temperature, batch_size, result):
        pass
    return result


def frame_seeds(seed: int, segment: str, count: int) -> Int[np.ndarray, " f"]:
    """One seed in [0, 2**63) per frame of a segment."""
    digest = hashlib.blake2b(f"{seed}/{segment}".encode(), digest_size=8).digest()
    # An odd stride visits every residue: no two frames of a segment share a seed.
    mixed = np.uint64(int.from_bytes(digest, "little")) + np.arange(count, dtype=np.uint64) * np.uint64(
        0x9E3779B97F4A7C15
    )
    return (mixed >> np.uint64(1)).astype(np.int64)


def _sample(
    policy: Policy,
    frames: Frames,
    seeds: Int[np.ndarray, " f"],
    temperature: float,
    batch_size: int,
    out: Array,
) -> Iterator[int]:
    """Fill out[F, K, H, A] batch by batch; yields how many frames are done."""
    for first in range(0, len(frames), batch_size):
        index = np.arange(first, min(first + batch_size, len(frames)))
        arrays, mask = frames.window(index, policy.spec.observation.window, policy.spec.observation.keys)
        batch = Batch(arrays, mask, tuple(frames.tasks[e] for e in frames.episode_of[index]))
        samples = policy.sample(policy.encode(batch), out.shape[1], seeds[index], temperature)
        if samples.shape != out[index].shape or not np.isfinite(samples).all():
            raise SpecError(
                f"the policy gave {samples.shape}, expected finite {out[index].shape}: check its horizon and its axes"
            )
        out[index] = samples
        yield int(index[-1]) + 1


def _tell(progress: Callable[[int, int], None] | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)


def _key(version: str, num_samples: int, seed: int, temperature: float) -> str:
    """A folder name; a version with unusual characters, or a long one, keeps its identity by a digest."""
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", version)[:64]
    if plain != version or plain.startswith("."):
        plain = f"v{plain}-{hashlib.blake2b(version.encode(), digest_size=6).hexdigest()}"
    return f"{plain}-k{num_samples}-s{seed}-t{temperature!r}"


def read_samples(path: Path, shape: tuple[int, ...]) -> Array | None:
    """The cached samples, mapped; None where there are none that fit (a damaged file is made again)."""
    if not path.exists():
        return None
    try:
        array: Any = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        logger.warning("%s is damaged (%s): sampling its candidates again", path, error)
        return None
    if array.shape != shape or array.dtype != np.float32:
        logger.warning(
            "%s holds %s %s, expected float32 %s: sampling its candidates again", path, array.dtype, array.shape, shape
        )
        return None
    return np.asarray(array)


def write_samples(path: Path, value: Array) -> None:
    """Publish samples as one file. Raises `StoreError` when the disk is full."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as file:
            np.save(file, value, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
        fsync_path(path.parent)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise StoreError(f"cannot write the candidate cache {path} ({error}): free some space and run again") from error
