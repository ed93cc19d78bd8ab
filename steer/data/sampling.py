"""Batches for training, drawn uniformly with replacement from every frame that has an action.

A sampler is a random stream over `Frames`: `state` and `restore` continue it exactly. Numpy in, numpy out.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from steer.data.frames import Frames
from steer.errors import ConfigError, SpecError
from steer.observation import Task
from steer.spec import Array

_COPIED_BYTES = 256 << 20


@dataclass(frozen=True)
class ChunkBatch:
    """For imitation: what was seen and the H actions that followed.

    arrays: key -> [B, T, ...]; mask: bool[B, T]; tasks: one per row, empty when no episode has a task.
    actions: past the end of the episode the last one is repeated.
    weights: factors of the rows' losses; None stands for ones.
    """

    arrays: Mapping[str, Array]
    mask: Bool[np.ndarray, "b t"]
    actions: Float[np.ndarray, "b h a"]
    tasks: tuple[Task, ...] = ()
    weights: Float[np.ndarray, " b"] | None = None


@dataclass(frozen=True)
class Transitions:
    """For temporal differences over an executed prefix of E steps; n <= E of them lie within the episode.

    rewards = sum_{j<n} gamma^j r_{t+j}; bootstrap = gamma^n, or 0 where the n steps end in a true terminal. A truncated
    episode bootstraps from its last observation. next_*: at t + n. actions: padded by repeating the last one.
    mc_returns: return to go of the recorded episode from t. candidates, next_candidates: the policy's samples at t and
    t + n; K = 0 where none were given.
    """

    arrays: Mapping[str, Array]
    mask: Bool[np.ndarray, "b t"]
    actions: Float[np.ndarray, "b e a"]
    rewards: Float[np.ndarray, " b"]
    bootstrap: Float[np.ndarray, " b"]
    next_arrays: Mapping[str, Array]
    next_mask: Bool[np.ndarray, "b t"]
    mc_returns: Float[np.ndarray, " b"]
    candidates: Float[np.ndarray, "b k e a"]
    next_candidates: Float[np.ndarray, "b k e a"]


def join_transitions(first: Transitions, second: Transitions) -> Transitions:
    """The rows of both; keys and numbers of candidates must agree."""

    def join(name: str) -> Any:
        one, two = getattr(first, name), getattr(second, name)
        if isinstance(one, Mapping):
            return {key: np.concatenate([one[key], two[key]]) for key in one}
        return np.concatenate([one, two])

    return Transitions(**{field.name: join(field.name) for field in fields(Transitions)})


def join_chunks(first: ChunkBatch, second: ChunkBatch) -> ChunkBatch:
    """The rows of both; where only one has tasks, those of the other are empty. Raises `SpecError` where only one has weights."""
    if (first.weights is None) != (second.weights is None):
        raise SpecError("only one of two batches has weights: give them to both")
    tasks = [batch.tasks or (Task(),) * len(batch.mask) for batch in (first, second)]
    weights = None if first.weights is None or second.weights is None else np.append(first.weights, second.weights)
    return ChunkBatch(
        {key: np.concatenate([value, second.arrays[key]]) for key, value in first.arrays.items()},
        np.concatenate([first.mask, second.mask]),
        np.concatenate([first.actions, second.actions]),
        tasks[0] + tasks[1] if first.tasks or second.tasks else (),
        weights,
    )


class _Draw:
    """A resumable stream of frame indices."""

    def __init__(self, frames: Frames, batch_size: int, seed: int) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}, expected 1 or more")
        self._decisions = frames.decisions
        self._batch_size = batch_size
        self._rng = np.random.Generator(np.random.PCG64(seed))

    def indices(self) -> Int[np.ndarray, " b"]:
        return self._decisions[self._rng.integers(len(self._decisions), size=self._batch_size)]

    def state(self) -> dict[str, Any]:
        """JSON: the bit generator's state and the number of frames it draws from."""
        return {"frames": len(self._decisions), "generator": copy.deepcopy(dict(self._rng.bit_generator.state))}

    def restore(self, state: Mapping[str, Any]) -> None:
        if state["frames"] != len(self._decisions):
            raise ConfigError(
                f"the sampler's state was saved over {state['frames']} frames, there are {len(self._decisions)}: "
                "resume with the same data, or start anew"
            )
        self._rng.bit_generator.state = state["generator"]


class ChunkSampler:
    """Windows of T frames with the H actions that follow the newest one. keys: of the observations, all by default."""

    def __init__(
        self,
        frames: Frames,
        horizon: int,
        window: int,
        batch_size: int,
        seed: int,
        keys: Sequence[str] | None = None,
    ) -> None:
        if horizon < 1:
            raise ConfigError(f"horizon is {horizon}, expected 1 or more")
        self._frames, self._window, self._keys = frames, window, keys
        self._finals = frames.finals
        self._draw = _Draw(frames, batch_size, seed)
        self._steps = np.arange(horizon)
        self._with_tasks = any(task.instruction or task.goal_image is not None for task in frames.tasks)

    def sample(self) -> ChunkBatch:
        return self.at(self._draw.indices())

    def at(self, index: Int[np.ndarray, " b"]) -> ChunkBatch:
        """The chunks that start at these frames; none of them may be final."""
        frames = self._frames
        episode = frames.episode_of[index]
        arrays, mask = frames.window(index, self._window, self._keys)
        # The row of a final frame repeats the last action, so it is the padding.
        rows = np.minimum(index[:, None] + self._steps, self._finals[episode][:, None])
        tasks = tuple(frames.tasks[e] for e in episode) if self._with_tasks else ()
        return ChunkBatch(arrays, mask, frames.actions[rows], tasks)

    def state(self) -> dict[str, Any]:
        """JSON; `restore` continues the stream exactly."""
        return self._draw.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        self._draw.restore(state)


class TransitionSampler:
    """Transitions over a prefix of E = `prefix` executed steps.

    gamma: discount per control step. candidates: float32[F, K, H, A] in the order of `frames`, H >= E.
    keys: of the observations, all by default.
    """

    def __init__(
        self,
        frames: Frames,
        prefix: int,
        gamma: float,
        window: int,
        batch_size: int,
        seed: int,
        candidates: Float[np.ndarray, "f k h a"] | None = None,
        keys: Sequence[str] | None = None,
    ) -> None:
        if prefix < 1 or not 0 <= gamma <= 1:
            raise ConfigError(
                f"prefix is {prefix} and gamma {gamma}, expected a prefix of 1 or more and gamma in [0, 1]"
            )
        self._frames, self._window, self._prefix, self._keys = frames, window, prefix, keys
        self._draw = _Draw(frames, batch_size, seed)
        self._steps = np.arange(prefix)
        self._discounts = (gamma ** np.arange(prefix + 1)).astype(np.float32)
        self._mc_returns = frames.mc_returns(gamma)
        self._finals = frames.finals
        self._candidates = self._prefixes(candidates)

    def sample(self) -> Transitions:
        return self.at(self._draw.indices())

    def at(self, index: Int[np.ndarray, " b"]) -> Transitions:
        """The transitions that start at these frames; none of them may be final."""
        frames = self._frames
        episode = frames.episode_of[index]
        final = self._finals[episode]
        next_index = np.minimum(index + self._prefix, final)
        rows = np.minimum(index[:, None] + self._steps, final[:, None])
        ended = frames.terminated[episode] & (next_index == final)
        arrays, mask = frames.window(index, self._window, self._keys)
        next_arrays, next_mask = frames.window(next_index, self._window, self._keys)
        return Transitions(
            arrays=arrays,
            mask=mask,
            actions=frames.actions[rows],
            # Rewards of final frames are 0, so padding adds nothing.
            rewards=frames.rewards[rows] @ self._discounts[:-1],
            bootstrap=np.where(ended, np.float32(0), self._discounts[next_index - index]),
            next_arrays=next_arrays,
            next_mask=next_mask,
            mc_returns=self._mc_returns[index],
            candidates=self._candidates[index],
            next_candidates=self._candidates[next_index],
        )

    def state(self) -> dict[str, Any]:
        """JSON; `restore` continues the stream exactly."""
        return self._draw.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        self._draw.restore(state)

    def _prefixes(self, candidates: Array | None) -> Array:
        """The first E steps of each candidate, close together in memory (drawing is then half as dear) unless they are many."""
        count, axes = len(self._frames), self._frames.actions.shape[1]
        if candidates is None:
            return np.zeros((count, 0, self._prefix, axes), np.float32)
        if (
            candidates.ndim != 4
            or len(candidates) != count
            or candidates.shape[2] < self._prefix
            or candidates.shape[3] != axes
        ):
            raise SpecError(
                f"candidates: got shape {candidates.shape}, expected ({count}, K, H >= {self._prefix}, {axes}): "
                "sample them for these frames, with chunks at least as long as the scored prefix"
            )
        prefixes = candidates[:, :, : self._prefix]
        # A growing buffer's samplers are made anew every round: what is large is not copied for each of them.
        large = isinstance(candidates, np.memmap) or prefixes.nbytes > _COPIED_BYTES
        return prefixes if large else np.ascontiguousarray(prefixes)
