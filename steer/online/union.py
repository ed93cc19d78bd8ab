"""`UnionPolicy`: proposals of two policies side by side, the one in training and the frozen one it started as.

A critic's maximum over the student alone feeds on its own errors: what it overrates is imitated and proposed again. With the
frozen policy always among the proposals there is something else to choose.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from steer.errors import SpecError
from steer.observation import Batch, ObservationSpec
from steer.policy import Context, Policy, PolicySpec

# The two must not start from the same noise, or a young student proposes what the frozen policy proposes.
_BASE_STREAM = 0x5EED_BA5E


class _Contexts(NamedTuple):
    student: Context
    base: Context


class UnionPolicy:
    """Implements `steer.policy.Policy`: candidate 0 is the student's own, then they take turns.

    `student_share` of every run of candidates are the student's, as evenly as whole numbers allow.
    """

    def __init__(self, student: Policy, base: Policy, student_samples: int = 1, base_samples: int = 1) -> None:
        self._student, self._base = student, base
        self._spec = _joint(student.spec, base.spec)
        self._cycle = _turns(student_samples, base_samples)

    @property
    def spec(self) -> PolicySpec:
        return self._spec

    @property
    def version(self) -> str:
        return union_version(self._student.version, self._base.version)

    def encode(self, observations: Batch) -> _Contexts:
        student, base = (self._encode(policy, observations) for policy in (self._student, self._base))
        return _Contexts(student, base)

    def sample(
        self,
        context: _Contexts,
        num_samples: int,
        seeds: Int[np.ndarray, " b"],
        temperature: float = 1.0,
        committed: Float[np.ndarray, "b d a"] | None = None,
    ) -> Float[np.ndarray, "b k h a"]:
        """See `steer.policy.Policy`."""
        whose = np.resize(self._cycle, num_samples)
        shape = (len(seeds), num_samples, self._spec.horizon, self._spec.action.size)
        samples = np.empty(shape, np.float32)
        for policy, its, its_seeds, mine in (
            (self._student, context.student, seeds, whose),
            (self._base, context.base, seeds ^ _BASE_STREAM, ~whose),
        ):
            if mine.any():
                samples[:, mine] = policy.sample(its, int(mine.sum()), its_seeds, temperature, committed)
        return samples

    def _encode(self, policy: Policy, observations: Batch) -> Context:
        """What this policy sees of it: its keys and its newest frames."""
        window, keys = policy.spec.observation.window, policy.spec.observation.keys
        arrays = {key: observations.arrays[key][:, -window:] for key in keys}
        return policy.encode(replace(observations, arrays=arrays, mask=observations.mask[:, -window:]))


def union_version(student: str, base: str) -> str:
    """What a union of policies of these versions calls itself."""
    return f"{student}+{base}"


def _turns(student: int, base: int) -> np.ndarray:
    """bool[student + base]: True where the student is due; the student begins."""
    if student < 1 or base < 0:
        raise SpecError(f"{student} candidates of the student and {base} of the base: the student needs at least 1")
    total = student + base
    due = np.floor(np.arange(total) * student / total)
    turns: np.ndarray = np.diff(due, prepend=-1) > 0
    return turns


def _joint(student: PolicySpec, base: PolicySpec) -> PolicySpec:
    """What both together are, as cautious as the more limited one."""
    problems = student.action.differences(base.action)
    if problems or student.horizon != base.horizon:
        raise SpecError(
            f"the two policies do not agree (horizons {student.horizon} and {base.horizon}): " + "; ".join(problems)
        )
    arrays = {array.name: array for spec in (base, student) for array in spec.observation.arrays}
    window = max(student.observation.window, base.observation.window)
    return replace(
        student,
        observation=ObservationSpec(tuple(arrays.values()), window),
        temperature=student.temperature and base.temperature,
        inpaints=student.inpaints and base.inpaints,
        trainable=False,
    )
