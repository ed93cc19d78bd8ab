"""Which frames show success and which do not, and batches of both."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from critics.reward.config import RewardConfig
from steer.data.frames import Frames
from steer.errors import ConfigError
from steer.spec import Array

# The split into episodes to fit and to calibrate on must be the same for objective and sampler, whatever their seeds.
_SPLIT_SEED = 0


@dataclass(frozen=True)
class RewardBatch:
    """Single frames, key -> [B, ...], and whether each shows success."""

    arrays: Mapping[str, Array]
    success: Float[np.ndarray, " b"]


@dataclass(frozen=True)
class Examples:
    """Frame numbers: of success, of failure, and of the latter the last ones of failed episodes."""

    positive: Int[np.ndarray, " p"]
    negative: Int[np.ndarray, " n"]
    last: Int[np.ndarray, " l"]


def split(config: RewardConfig, frames: Frames) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " m"]]:
    """Labelled episodes to fit, and to calibrate on, with successes and failures shared out alike.

    Raises `ConfigError` where one of the two kinds has fewer than two episodes.
    """
    rng = np.random.default_rng(_SPLIT_SEED)
    fit, calibrate = [], []
    for success in (True, False):
        episodes = np.flatnonzero(frames.labelled & (frames.success == success))
        if len(episodes) < 2:
            raise ConfigError(
                f"{len(episodes)} episodes are labelled as a {'success' if success else 'failure'}, a classifier needs at least 2 "
                "of each: record or label more (steer label)"
            )
        order = rng.permutation(episodes)
        size = min(max(1, round(config.calibration * len(order))), len(order) - 1)
        calibrate.append(order[:size])
        fit.append(order[size:])
    return np.sort(np.concatenate(fit)), np.sort(np.concatenate(calibrate))


def examples(config: RewardConfig, frames: Frames, episodes: Int[np.ndarray, " n"]) -> Examples:
    """Of these episodes: their last frames where they succeeded, everything well before, and everything of those that failed."""
    positive, negative, last = [], [], []
    for episode in episodes:
        start, final = int(frames.starts[episode]), int(frames.finals[episode])
        shown = max(final + 1 - config.positive_frames, start + 1)
        if frames.success[episode]:
            positive.append(np.arange(shown, final + 1))
            negative.append(np.arange(start, max(shown - config.gap_frames, start + 1)))
        else:
            negative.append(np.arange(start, final + 1))
            last.append(np.arange(shown, final + 1))
    return Examples(*(np.concatenate(parts).astype(np.int64) for parts in (positive, negative, last)))


class SuccessSampler:
    """Batches with as many frames of success as of failure, with replacement: a resumable random stream."""

    def __init__(self, config: RewardConfig, frames: Frames, seed: int = 0) -> None:
        self._config, self._frames = config, frames
        self._keys = config.observation(frames.robot).keys
        self._examples = examples(config, frames, split(config, frames)[0])
        self._rng = np.random.Generator(np.random.PCG64(seed))

    def sample(self) -> RewardBatch:
        positives = self._config.batch_size // 2
        negatives = self._config.batch_size - positives
        last = round(self._config.last_share * negatives)
        index = np.concatenate(
            [
                self._draw(self._examples.positive, positives),
                self._draw(self._examples.last, last),
                self._draw(self._examples.negative, negatives - last),
            ]
        )
        success: Bool[np.ndarray, " b"] = np.arange(len(index)) < positives
        return RewardBatch(
            {key: self._frames.observations[key][index] for key in self._keys}, success.astype(np.float32)
        )

    def state(self) -> dict[str, Any]:
        """JSON; `restore` continues the stream exactly."""
        return {"frames": len(self._frames), "generator": copy.deepcopy(dict(self._rng.bit_generator.state))}

    def restore(self, state: Mapping[str, Any]) -> None:
        if state["frames"] != len(self._frames):
            raise ConfigError(
                f"the sampler's state was saved over {state['frames']} frames, there are {len(self._frames)}: "
                "resume with the same data, or start anew"
            )
        self._rng.bit_generator.state = state["generator"]

    def _draw(self, frames: Int[np.ndarray, " n"], count: int) -> Int[np.ndarray, " c"]:
        return frames[self._rng.integers(len(frames), size=count)]
