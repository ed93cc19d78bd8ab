"""`ArraySpec`: the contract of one array at a seam. It documents, checks and makes test data.

Contract: numpy only. A spec describes one element without its leading axes (batch, time); `validate` is told how many
leading axes stand before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from steer.errors import SpecError

Array: TypeAlias = NDArray[Any]


@dataclass(frozen=True)
class ArraySpec:
    """One named array: dtype, shape, bounds, and what its entries are called.

    shape: axes of one frame; -1 stands for an axis of any length.
    names: for a vector, one name per entry, "thing.quantity" ("ee.x", "cube.yaw"); transforms find entries by them.
    low, high: inclusive bounds for every entry, or None.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    unit: str = ""

    def __post_init__(self) -> None:
        if self.names and (len(self.shape) != 1 or len(self.names) != self.shape[0]):
            raise SpecError(
                f"{self.name}: {len(self.names)} entry names for shape {self.shape}: give one per entry of a vector"
            )
        if len(set(self.names)) != len(self.names):
            raise SpecError(
                f"{self.name}: entry names repeat: {sorted(n for n in self.names if self.names.count(n) > 1)}"
            )

    def validate(self, value: Array, leading: int = 0) -> None:
        """Raise `SpecError` unless `value` has `leading` free axes and then conforms; floats must be finite."""
        if not isinstance(value, np.ndarray):
            raise SpecError(f"{self.name}: got {type(value).__name__}, expected a numpy array of {self.dtype}")
        if value.dtype != np.dtype(self.dtype):
            raise SpecError(f"{self.name}: got dtype {value.dtype}, expected {self.dtype}: convert it before sending")
        got = value.shape[leading:]
        fits = len(value.shape) == leading + len(self.shape) and all(
            want in (-1, have) for want, have in zip(self.shape, got, strict=True)
        )
        if not fits:
            axes = ", ".join(["*"] * leading + ["any" if n == -1 else str(n) for n in self.shape])
            raise SpecError(
                f"{self.name}: got shape {value.shape}, expected ({axes}): check the observation keys and their order"
            )
        if np.issubdtype(value.dtype, np.floating) and not np.isfinite(value).all():
            raise SpecError(
                f"{self.name}: {self._where(~np.isfinite(value), value)} is not finite: check the sensor that feeds it"
            )
        if self.low is not None and value.size and value.min() < self.low:
            raise SpecError(
                f"{self.name}: {self._where(value < self.low, value)} is below the lowest allowed {self.low}"
            )
        if self.high is not None and value.size and value.max() > self.high:
            raise SpecError(
                f"{self.name}: {self._where(value > self.high, value)} is above the highest allowed {self.high}"
            )

    def generate(self, rng: np.random.Generator, leading: tuple[int, ...] = (), free: int = 8) -> Array:
        """A random conforming array; axes of any length get `free` entries."""
        shape = leading + tuple(free if n == -1 else n for n in self.shape)
        dtype = np.dtype(self.dtype)
        if dtype == np.bool_:
            return rng.integers(0, 2, shape).astype(np.bool_)
        if np.issubdtype(dtype, np.integer):
            info = np.iinfo(dtype)
            low = info.min if self.low is None else int(self.low)
            high = info.max if self.high is None else int(self.high)
            return rng.integers(low, high, shape, dtype=dtype, endpoint=True)
        low_f = -1.0 if self.low is None else self.low
        high_f = 1.0 if self.high is None else self.high
        return rng.uniform(low_f, high_f, shape).astype(dtype)

    def index(self, name: str) -> int:
        """Position of the entry called `name`."""
        if name not in self.names:
            raise SpecError(f"{self.name}: no entry called {name!r}; it has {list(self.names) or 'no names'}")
        return self.names.index(name)

    def _where(self, wrong: NDArray[np.bool_], value: Array) -> str:
        """The first wrong entry, by name where it has one."""
        position = tuple(int(i) for i in np.argwhere(wrong)[0])
        label = self.names[position[-1]] if self.names else f"entry {list(position)}"
        return f"{label} = {value[position]}"
