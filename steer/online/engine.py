"""The engine of a published version: what actors play with, and what a server that follows the run serves.

RUN/versions/000007/policy   the student, proposing beside the frozen policy that the run started with
RUN/versions/000007/critic   scores both
RUN/versions/000007/edit     where there is one, a learned edit that adds candidates
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from steer import registry
from steer.engine import Engine
from steer.online.union import UnionPolicy
from steer.policy import Policy


@dataclass(frozen=True)
class Mixture:
    """How candidates are shared out between the student and the frozen base."""

    base: Policy
    base_samples: int
    student_samples: int


def steered(folder: Path, mixture: Mixture, refine: str = "") -> Engine:
    """The version in `folder` as it acts. refine: one more refiner, by name.

    Raises `CheckpointError` for a broken folder, `SpecError` where its models or the base do not agree.
    """
    union = UnionPolicy(_student(folder), mixture.base, mixture.student_samples, mixture.base_samples)
    critic = registry.critic(str(folder / "critic"))
    edit = folder / "edit"
    names = ([f"edit:{edit}"] if edit.is_dir() else []) + ([refine] if refine else [])
    return Engine(union, critic, [registry.refiner(name, critic) for name in names])


def alone(folder: Path) -> Engine:
    """The student of a version, unsteered."""
    return Engine(_student(folder))


def _student(folder: Path) -> Policy:
    return registry.policy(str(folder / "policy"))
