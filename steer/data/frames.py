"""`Frames`: every frame of many episodes in one row of arrays, ready for sampling. The last observation is a frame too.

    episode of N actions:   frames  s_0 s_1 ... s_{N-1} s_N     (N + 1 rows)
                            actions a_0 a_1 ... a_{N-1} a_{N-1}
                            rewards r_0 r_1 ... r_{N-1} 0

    flags   of steps: held (no chunk was there, nobody chose), intervention (a person acted); False on the last frame

Rewards are those that were recorded, but for episodes of which a later label says otherwise: the label rewards these.

Arrays are plain numpy; one that is larger than the memory limit (images) lies in an unnamed temporary file that is
mapped and vanishes with the process. Knows nothing of batches (`steer.data.sampling`).
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import DTypeLike

from steer.data.episode import EpisodeRecord
from steer.data.store import EpisodeStore
from steer.errors import SpecError
from steer.observation import Task
from steer.robot import RobotSpec
from steer.spec import Array

logger = logging.getLogger(__name__)

MEMORY_LIMIT_BYTES = 2 << 30
FLAGS = ("held", "intervention")
"""Of what was recorded per step, the booleans that learning asks about."""


@dataclass(frozen=True)
class Frames:
    """See the module's contract. E counts episodes, F frames.

    success: False where nobody has said, then labelled is False. ids, tasks: one per episode. flags: those that were recorded.
    """

    robot: RobotSpec
    observations: Mapping[str, Array]
    actions: Float[np.ndarray, "f a"]
    rewards: Float[np.ndarray, " f"]
    starts: Int[np.ndarray, " e"]
    lengths: Int[np.ndarray, " e"]
    terminated: Bool[np.ndarray, " e"]
    success: Bool[np.ndarray, " e"]
    labelled: Bool[np.ndarray, " e"]
    episode_of: Int[np.ndarray, " f"]
    tasks: tuple[Task, ...]
    ids: tuple[str, ...]
    flags: Mapping[str, Bool[np.ndarray, " f"]] = field(default_factory=dict)

    def __len__(self) -> int:
        """F."""
        return len(self.actions)

    @property
    def finals(self) -> Int[np.ndarray, " e"]:
        """The frame after the last action, per episode."""
        finals: Array = self.starts + self.lengths
        return finals

    @property
    def decisions(self) -> Int[np.ndarray, " n"]:
        """Every frame at which an action was taken."""
        decisions: Array = np.delete(np.arange(len(self)), self.finals)
        return decisions

    def flag(self, name: str) -> Bool[np.ndarray, " f"]:
        """One of `FLAGS` at every frame; False throughout where it was not recorded."""
        given = self.flags.get(name)
        return np.zeros(len(self), np.bool_) if given is None else given

    def mc_returns(self, gamma: float) -> Float[np.ndarray, " f"]:
        """Discounted return to go, G_t = r_t + gamma G_{t+1}; 0 on final frames, also where time ran out."""
        returns = self.rewards.astype(np.float64)
        for back in range(1, int(self.lengths.max(initial=0)) + 1):
            at = (self.finals - back)[self.lengths >= back]
            returns[at] += gamma * returns[at + 1]
        return returns.astype(np.float32)

    def rewarded_by_success(self, episodes: Bool[np.ndarray, " e"] | None = None) -> Frames:
        """The same frames with 1 at the last action of each successful episode, which then ends there for good, and 0 elsewhere.

        For data whose outcome is a label that came later, or a person's: nothing rewarded it while it was recorded.
        episodes: only these, all by default.
        """
        chosen = np.ones_like(self.success) if episodes is None else episodes
        rewards = np.where(chosen[self.episode_of], np.float32(0), self.rewards)
        rewards[(self.finals - 1)[self.success & chosen]] = 1.0
        return replace(self, rewards=rewards, terminated=self.terminated | (self.success & chosen))

    def with_outcomes(self, of: Frames) -> Frames:
        """The same frames; those episodes that `of` holds, which must be among them, have its rewards, ends and labels."""
        places = {name: place for place, name in enumerate(self.ids)}
        episodes = np.array([places[name] for name in of.ids], np.int64)
        changed = {name: getattr(self, name).copy() for name in ("rewards", "terminated", "success", "labelled")}
        for name, values in changed.items():
            values[self.rows(episodes) if name == "rewards" else episodes] = getattr(of, name)
        return replace(self, **changed)

    def window(
        self, index: Int[np.ndarray, " b"], window: int, keys: Sequence[str] | None = None
    ) -> tuple[dict[str, Array], Bool[np.ndarray, "b t"]]:
        """The last `window` frames up to each index: key -> [B, T, ...], and False where there was none yet.

        Before the start of its episode the first frame is repeated. keys: those to read (all by default), since images are dear.
        """
        first = self.starts[self.episode_of[index]][:, None]
        rows = index[:, None] + np.arange(1 - window, 1)
        shown = np.maximum(rows, first)
        return {key: self.observations[key][shown] for key in keys or self.observations}, rows >= first

    def subset(self, episodes: Sequence[int] | Int[np.ndarray, " n"]) -> Frames:
        """These episodes, in this order."""
        chosen = np.asarray(episodes, np.int64)
        lengths, rows = self.lengths[chosen], self.rows(chosen)
        return Frames(
            robot=self.robot,
            observations={key: _gather(value, rows) for key, value in self.observations.items()},
            actions=self.actions[rows],
            rewards=self.rewards[rows],
            starts=_starts(lengths),
            lengths=lengths,
            terminated=self.terminated[chosen],
            success=self.success[chosen],
            labelled=self.labelled[chosen],
            episode_of=np.repeat(np.arange(len(chosen)), lengths + 1),
            tasks=tuple(self.tasks[e] for e in chosen),
            ids=tuple(self.ids[e] for e in chosen),
            flags={name: value[rows] for name, value in self.flags.items()},
        )

    def rows(self, episodes: Sequence[int] | Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """The frames of these episodes, in the order `subset` puts them; for arrays that are parallel to the frames."""
        parts = [np.arange(self.starts[e], self.starts[e] + self.lengths[e] + 1) for e in episodes]
        return np.concatenate(parts or [np.zeros(0, np.int64)])

    def split_episodes(self, held_out: float, seed: int) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " m"]]:
        """Episode numbers to train on and to hold out, by chance; both sorted, neither empty."""
        count = len(self.lengths)
        if not 0 < held_out < 1 or count < 2:
            raise SpecError(
                f"cannot hold out a share of {held_out} of {count} episodes: give a share in (0, 1) of at least 2"
            )
        size = min(max(1, round(held_out * count)), count - 1)
        order = np.random.default_rng(seed).permutation(count)
        return np.sort(order[size:]), np.sort(order[:size])

    def split(self, held_out: float, seed: int) -> tuple[Frames, Frames]:
        """Frames to train on and frames of held-out episodes."""
        train, test = self.split_episodes(held_out, seed)
        return self.subset(train), self.subset(test)


def no_frames(robot: RobotSpec) -> Frames:
    """Frames of no episode at all: they only say which robot it is."""
    empty = np.zeros(0, np.int64)
    return Frames(
        robot=robot,
        observations={a.name: np.zeros((0, *a.shape), a.dtype) for a in robot.observation.arrays},
        actions=np.zeros((0, robot.action.size), np.float32),
        rewards=np.zeros(0, np.float32),
        starts=empty,
        lengths=empty,
        terminated=np.zeros(0, np.bool_),
        success=np.zeros(0, np.bool_),
        labelled=np.zeros(0, np.bool_),
        episode_of=empty,
        tasks=(),
        ids=(),
    )


def join_frames(parts: Sequence[Frames], memory_limit_bytes: int = MEMORY_LIMIT_BYTES) -> Frames:
    """The episodes of all parts, in order. They must be of one robot; raises `SpecError` for shapes that differ."""
    check_joinable(parts)
    total = sum(map(len, parts))
    observations: dict[str, Array] = {}
    for key, value in parts[0].observations.items():
        observations[key] = allocate((total, *value.shape[1:]), value.dtype, memory_limit_bytes)
        start = 0
        for part in parts:
            _put(observations[key], start, part.observations[key], key)
            start += len(part)
    return joined(parts, observations)


def check_joinable(parts: Sequence[Frames]) -> None:
    """Raise `SpecError` unless these are parts, and of one robot."""
    if not parts:
        raise SpecError("there are no frames to join: give at least one part")
    if any(part.robot != parts[0].robot for part in parts):
        raise SpecError(
            f"frames of {sorted({part.robot.name for part in parts})} differ in their robot: join one robot's"
        )


def joined(parts: Sequence[Frames], observations: Mapping[str, Array]) -> Frames:
    """The episodes of all parts, in order, whose observations are joined already."""
    lengths = np.concatenate([part.lengths for part in parts])
    names = {name for part in parts for name in part.flags}
    return Frames(
        robot=parts[0].robot,
        observations=observations,
        actions=np.concatenate([part.actions for part in parts]),
        rewards=np.concatenate([part.rewards for part in parts]),
        starts=_starts(lengths),
        lengths=lengths,
        terminated=np.concatenate([part.terminated for part in parts]),
        success=np.concatenate([part.success for part in parts]),
        labelled=np.concatenate([part.labelled for part in parts]),
        episode_of=np.repeat(np.arange(len(lengths)), lengths + 1),
        tasks=tuple(task for part in parts for task in part.tasks),
        ids=tuple(name for part in parts for name in part.ids),
        flags={name: np.concatenate([part.flag(name) for part in parts]) for name in sorted(names)},
    )


def load_frames(
    store: EpisodeStore,
    episodes: Sequence[int] | None = None,
    memory_limit_bytes: int = MEMORY_LIMIT_BYTES,
    records: Sequence[EpisodeRecord] | None = None,
) -> Frames:
    """Read episodes of a store (all by default), in the order given. records: what is known of them, if not what the store says.

    Raises `SpecError` where there is none, or where episodes differ in the shape of an observation.
    """
    frames = read_frames(store, episodes, memory_limit_bytes, records)
    unlabelled = int((~frames.labelled).sum())
    if unlabelled:
        logger.warning("%d of %d episodes have no success label and count as failures", unlabelled, len(frames.lengths))
    return frames


def read_frames(
    store: EpisodeStore,
    episodes: Sequence[int] | None = None,
    memory_limit_bytes: int = MEMORY_LIMIT_BYTES,
    records: Sequence[EpisodeRecord] | None = None,
) -> Frames:
    """`load_frames` for those who do not look at success: no word about missing labels."""
    chosen = list(range(len(store))) if episodes is None else list(episodes)
    if not chosen:
        raise SpecError(f"{store.path} has no episodes to load: collect or convert some first")
    if records is None:
        every = store.records()
        records = [every[index] for index in chosen]
    lengths = np.array([record.length for record in records], np.int64)
    starts, total = _starts(lengths), int(lengths.sum()) + len(chosen)
    actions = np.zeros((total, store.robot.action.size), np.float32)
    rewards = np.zeros(total, np.float32)
    observations: dict[str, Array] = {}
    flags: dict[str, Array] = {}
    tasks = []
    for start, length, episode in zip(starts, lengths, store.episodes(chosen), strict=True):
        actions[start : start + length] = episode.actions
        actions[start + length] = episode.actions[-1]
        rewards[start : start + length] = episode.rewards
        for key, value in episode.observations.items():
            if key not in observations:
                observations[key] = allocate((total, *value.shape[1:]), value.dtype, memory_limit_bytes)
            _put(observations[key], int(start), value, key)
        for name in FLAGS:
            if name in episode.steps:
                given = flags.setdefault(name, np.zeros(total, np.bool_))
                given[start : start + length] = episode.steps[name].astype(np.bool_)
        tasks.append(episode.task)
    return _frames(store.robot, observations, actions, rewards, flags, records, tuple(tasks))


def _frames(
    robot: RobotSpec,
    observations: Mapping[str, Array],
    actions: Array,
    rewards: Array,
    flags: Mapping[str, Array],
    records: Sequence[EpisodeRecord],
    tasks: tuple[Task, ...],
) -> Frames:
    lengths = np.array([record.length for record in records], np.int64)
    labelled = np.array([record.success is not None for record in records], np.bool_)
    recorded = Frames(
        robot=robot,
        observations=observations,
        actions=actions,
        rewards=rewards,
        starts=_starts(lengths),
        lengths=lengths,
        terminated=np.array([record.terminated for record in records], np.bool_),
        success=np.array([bool(record.success) for record in records], np.bool_),
        labelled=labelled,
        episode_of=np.repeat(np.arange(len(records)), lengths + 1),
        tasks=tasks,
        ids=tuple(record.id for record in records),
        flags=flags,
    )
    return recorded.rewarded_by_success(np.array([record.corrected for record in records], np.bool_))


def allocate(shape: tuple[int, ...], dtype: DTypeLike, memory_limit_bytes: int = MEMORY_LIMIT_BYTES) -> Array:
    """An array to fill: in memory, or where it would be larger than the limit, mapped from a temporary file."""
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if size <= memory_limit_bytes:
        return np.empty(shape, dtype)
    logger.info("mapping an array of %.1f GB from a temporary file in %s", size / 1e9, tempfile.gettempdir())
    with tempfile.TemporaryFile(prefix="steer-frames-") as file:
        mapped: np.memmap[Any, np.dtype[Any]] = np.memmap(file, dtype=dtype, mode="w+", shape=shape)
    return mapped


def _starts(lengths: Int[np.ndarray, " e"]) -> Int[np.ndarray, " e"]:
    """Each episode takes one row more than it has actions."""
    starts: Array = np.cumsum(lengths + 1) - (lengths + 1)
    return starts


def _put(target: Array, start: int, value: Array, key: str) -> None:
    if value.shape[1:] != target.shape[1:] or value.dtype != target.dtype:
        raise SpecError(
            f"observation {key!r}: an episode has {value.dtype} {value.shape[1:]} per frame, the first had {target.dtype} "
            f"{target.shape[1:]}: load episodes of one shape together"
        )
    target[start : start + len(value)] = value


def _gather(value: Array, rows: Int[np.ndarray, " n"]) -> Array:
    """Rows of an array, mapped when the source is: what was too large for memory stays out of it."""
    if not isinstance(value, np.memmap):
        copied: Array = value[rows]
        return copied
    target = allocate((len(rows), *value.shape[1:]), value.dtype, memory_limit_bytes=0)
    for at in range(0, len(rows), 1024):
        target[at : at + 1024] = value[rows[at : at + 1024]]
    return target
