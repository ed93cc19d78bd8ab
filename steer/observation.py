"""Observations, tasks, and batches of them: what a policy and a critic are shown.

The contract of an observation (T frames of history, the newest last):

    images   uint8[T, height, width, 3]   RGB, 0..255
    vectors  float32[T, n]                in the units of the entry names of their `ArraySpec`
    mask     bool[T]                      False marks padding before the first frame of the episode
    time_s   float                        monotonic clock of the capturing process when the newest frame was taken

Arrays are numpy; a framework's tensors never cross this seam.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from steer.errors import SpecError
from steer.spec import Array, ArraySpec


@dataclass(frozen=True)
class Task:
    """What the robot shall do: an instruction, a goal image uint8[h, w, 3], both, or (one-task policies) neither."""

    instruction: str = ""
    goal_image: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Observation:
    """The last T frames of every key, see the module's contract."""

    arrays: Mapping[str, Array]
    mask: NDArray[np.bool_]
    time_s: float = 0.0

    @classmethod
    def single(cls, frame: Mapping[str, Array], time_s: float = 0.0) -> Observation:
        """One frame as a history of length one."""
        return cls({key: value[None] for key, value in frame.items()}, np.ones(1, np.bool_), time_s)


@dataclass(frozen=True)
class ObservationSpec:
    """The keys a model wants or a robot gives, one `ArraySpec` each, and the number of frames of history."""

    arrays: tuple[ArraySpec, ...]
    window: int = 1

    def __post_init__(self) -> None:
        if self.window < 1:
            raise SpecError(f"observation window is {self.window}, expected at least 1 frame")

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(spec.name for spec in self.arrays)

    def __getitem__(self, key: str) -> ArraySpec:
        for spec in self.arrays:
            if spec.name == key:
                return spec
        raise SpecError(f"no observation called {key!r}; there are {list(self.keys)}")

    def validate(self, observation: Observation) -> None:
        """Raise `SpecError` unless every key is there and conforms. Further keys are allowed."""
        self._check(observation.arrays, observation.mask, (self.window,))

    def validate_batch(self, batch: Batch) -> None:
        """Like `validate`, for B observations at once."""
        self._check(batch.arrays, batch.mask, (len(batch), self.window))

    def validate_frame(self, frame: Mapping[str, Array]) -> None:
        """Like `validate`, for one frame without its time axis."""
        self._check_keys(frame)
        for spec in self.arrays:
            spec.validate(frame[spec.name])

    def differences(self, given: ObservationSpec) -> list[str]:
        """Why a model that wants `self` cannot be fed from `given` (keys, dtypes, shapes, entry names); empty if it can."""
        problems = []
        for want in self.arrays:
            if want.name not in given.keys:
                problems.append(f"observation {want.name!r} is wanted, but only {list(given.keys)} are given")
                continue
            have = given[want.name]
            if have.dtype != want.dtype:
                problems.append(f"observation {want.name!r}: dtype {want.dtype} is wanted, {have.dtype} is given")
            if len(have.shape) != len(want.shape) or any(
                -1 not in (a, b) and a != b for a, b in zip(have.shape, want.shape, strict=True)
            ):
                problems.append(f"observation {want.name!r}: shape {want.shape} is wanted, {have.shape} is given")
            if want.names and have.names and want.names != have.names:
                problems.append(
                    f"observation {want.name!r}: entries {list(want.names)} are wanted, {list(have.names)} are given"
                )
        return problems

    def generate(self, rng: np.random.Generator) -> Observation:
        """A random conforming observation, for tests and for warming a model."""
        arrays = {spec.name: spec.generate(rng, (self.window,)) for spec in self.arrays}
        return Observation(arrays, np.ones(self.window, np.bool_))

    def _check(self, arrays: Mapping[str, Array], mask: NDArray[np.bool_], leading: tuple[int, ...]) -> None:
        """Keys, mask and arrays; `leading` are the axes that stand before a frame's own: (T,) or (B, T)."""
        self._check_keys(arrays)
        if mask.shape != leading:
            raise SpecError(f"mask: got shape {mask.shape}, expected {leading}: one flag per frame of history")
        for spec in self.arrays:
            value = arrays[spec.name]
            spec.validate(value, leading=len(leading))
            got = value.shape[: len(leading)]
            if got != leading:
                have, want = (" x ".join(map(str, axes)) for axes in (got, leading))
                raise SpecError(f"{spec.name}: got {have} frames of history, expected {want}")

    def _check_keys(self, arrays: Mapping[str, Array]) -> None:
        missing = [key for key in self.keys if key not in arrays]
        if missing:
            raise SpecError(f"observation lacks {missing}; it has {sorted(arrays)}: map the keys to these names")


@dataclass(frozen=True)
class Batch:
    """B observations of one bucket (same keys, window and shapes), stacked.

    arrays: key -> [B, T, ...];  mask: bool[B, T];  tasks: one per row.
    """

    arrays: Mapping[str, Array]
    mask: NDArray[np.bool_]
    tasks: tuple[Task, ...] = field(default=())

    def __len__(self) -> int:
        return int(self.mask.shape[0])

    @classmethod
    def stack(
        cls, observations: Sequence[Observation], tasks: Sequence[Task] = (), keys: Sequence[str] | None = None
    ) -> Batch:
        """Stack observations of one bucket; `keys` limits which arrays are taken."""
        if not observations:
            raise SpecError("cannot stack an empty batch: give at least one observation")
        names = tuple(observations[0].arrays) if keys is None else tuple(keys)
        arrays = {name: np.stack([o.arrays[name] for o in observations]) for name in names}
        return cls(arrays, np.stack([o.mask for o in observations]), tuple(tasks) or (Task(),) * len(observations))
