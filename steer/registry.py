"""The registry: families of policies, critics and robots, found by entry points, so that a stranger's package adds one.

    [project.entry-points."steer.policies"]   my_kind = "my_package:FAMILY"      a `Family`
    [project.entry-points."steer.critics"]    likewise
    [project.entry-points."steer.refiners"]   my_edit = "my_package:create"      create(critic, place, options) -> Refiner
    [project.entry-points."steer.robots"]     my_arm = "my_package:create"       create(place, options) -> Robot

Our own packages have everyday names (`policies`, `robots`), and a user's folder of that name would shadow them; the origin of
what was imported is therefore checked against the distribution that declared it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from steer.checkpoints import read_checkpoint
from steer.critic import Critic
from steer.description import Description
from steer.engine import Engine
from steer.errors import ConfigError, MissingExtraError
from steer.model_name import ModelName
from steer.policy import Policy
from steer.refiner import Refiner
from steer.robot import Robot

POLICIES = "steer.policies"
CRITICS = "steer.critics"
REFINERS = "steer.refiners"
ROBOTS = "steer.robots"


@dataclass(frozen=True)
class Trainable:
    """How a family is trained here.

    config: a frozen dataclass whose defaults are the recipe; each field is documented, and becomes a flag.
    objective: makes the `steer.training.objective.Objective` of a config and the data.
    sampler: makes the batches that this objective expects (`steer.training.objective.Sampler`), of the same arguments.

    A policy's are called with (config, frames, seed=...), a critic's with (config, frames, candidates, seed=...).
    A policy's objective also takes start=: None, or the `steer.checkpoints.Checkpoint` of its family to continue from, whose
    spec, transforms with their statistics, and weights are taken over instead of being fitted and drawn. `config` must then
    have the checkpoint's sizes (read it from `start.config` and replace what is to differ: steps, rates). Its `step` takes a
    `ChunkBatch`: whose `actions` may be other chunks than the recorded ones, and whose `weights` multiply the rows' losses.
    """

    config: type[Any]
    objective: Callable[..., Any]
    sampler: Callable[..., Any]


@dataclass(frozen=True)
class Family:
    """One kind of model: how it is loaded and, if at all, trained.

    describe: what `steer inspect` says of a format that is not ours, without making a model of it.
    convert: makes such a checkpoint one of our folders, and returns its version.
    """

    kind: str
    summary: str
    load: Callable[[ModelName], Any]
    trainable: Trainable | None = None
    describe: Callable[[ModelName], Description] | None = None
    convert: Callable[[ModelName, Path], str] | None = None


def policy(text: str) -> Policy:
    """Load the policy called `text`, see `steer.model_name`."""
    name = ModelName.parse(text)
    loaded: Policy = family(POLICIES, name.kind).load(name)
    return loaded


def critic(text: str) -> Critic:
    """Load the critic called `text`."""
    name = ModelName.parse(text)
    loaded: Critic = family(CRITICS, name.kind).load(name)
    return loaded


def verdict(critic: str) -> Mapping[str, Any] | None:
    """What its training said of the critic called `critic` ("may_steer", "reasons", ...); None for one that has no verdict."""
    place = Path(ModelName.parse(critic).place)
    if not (place / "documents" / "verdict.json").exists():
        return None
    document: Mapping[str, Any] = read_checkpoint(place).documents["verdict"]
    if not isinstance(document.get("may_steer"), bool):
        raise ConfigError(
            f"{place}: its verdict does not say 'may_steer': train the critic again, or remove the document"
        )
    return document


def refiner(text: str, critic: Critic) -> Refiner:
    """Make the refiner called `text` (`gradient:?steps=5&step_size=0.02`, `edit:runs/edit`) for a critic."""
    name = ModelName.parse(text if ":" in text else f"{text}:")
    create: Callable[[Critic, str, Mapping[str, str]], Refiner] = _load(REFINERS, name.kind)
    return create(critic, name.place, name.options)


def family_of(kind: str) -> Family:
    """The family of policies or critics registered as `kind`."""
    groups = [group for group in (POLICIES, CRITICS) if kind in _entries(group)]
    if not groups:
        known = sorted({*_entries(POLICIES), *_entries(CRITICS)})
        raise ConfigError(f"unknown kind {kind!r}: installed are {known}; write kind:place")
    return family(groups[0], kind)


def engine(policy_name: str = "", critic_name: str = "", refiner_name: str = "") -> Engine:
    """The engine of these models; an empty name leaves the part out."""
    if refiner_name and not critic_name:
        raise ConfigError(
            f"refiner {refiner_name!r} needs a critic to score what it adds: give --critic, or leave it out"
        )
    proposes = policy(policy_name) if policy_name else None
    scores = critic(critic_name) if critic_name else None
    refiners = [refiner(refiner_name, scores)] if refiner_name and scores is not None else []
    return Engine(proposes, scores, refiners)


def robot(text: str) -> Robot:
    """Make the robot called `text` (`panda`, `gym:steer/PickPlace-v0?seed=3`); it is not connected yet."""
    name = ModelName.parse(text if ":" in text else f"{text}:")
    create: Callable[[str, Mapping[str, str]], Robot] = _load(ROBOTS, name.kind)
    return create(name.place, name.options)


def kinds(group: str) -> tuple[str, ...]:
    """Names registered in a group, sorted."""
    return tuple(sorted(_entries(group)))


def family(group: str, kind: str) -> Family:
    """The family registered as `kind`."""
    found = _load(group, kind)
    if not isinstance(found, Family):
        raise ConfigError(
            f"entry point {kind!r} of {group} is a {type(found).__name__}, expected a steer.registry.Family"
        )
    return found


@cache
def _entries(group: str) -> Mapping[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=group)}


@cache
def _load(group: str, kind: str) -> Any:
    entries = _entries(group)
    if kind not in entries:
        what = group.removeprefix("steer.")
        for other in (POLICIES, CRITICS):
            if kind in _entries(other):
                raise ConfigError(
                    f"{kind!r} is a kind of {other.removeprefix('steer.')}, but one of {what} is wanted here"
                )
        raise ConfigError(
            f"unknown kind {kind!r} of {what}: installed are {sorted(entries) or 'none'}; "
            "write kind:place, and install the package that brings the kind"
        )
    entry = entries[kind]
    try:
        loaded = entry.load()
    except ModuleNotFoundError as error:
        _check_origin(entry)
        raise MissingExtraError(str(error.name), _extra_for(str(error.name)), f"kind {kind!r}") from error
    _check_origin(entry)
    return loaded


def _extra_for(package: str) -> str:
    sim = {"pybullet", "pybullet_data", "gymnasium"}
    return "sim" if package.partition(".")[0] in sim else "train"


def _check_origin(entry: EntryPoint) -> None:
    """Raise `ConfigError` when the entry point's module was imported from elsewhere than its distribution."""
    module = sys.modules.get(entry.module.partition(".")[0])
    if module is None or entry.dist is None:
        return
    places = [Path(place).resolve() for place in getattr(module, "__path__", [])] or [
        Path(str(module.__file__)).resolve()
    ]
    root = _distribution_root(entry)
    if not any(place.is_relative_to(root) for place in places):
        raise ConfigError(
            f"'{entry.module}' was imported from {places[0]}, but {entry.dist.name} lives in {root}: "
            "a folder of yours has the name of one of our packages; rename it or start elsewhere"
        )


def _distribution_root(entry: EntryPoint) -> Path:
    """Where the distribution's modules lie: site-packages, or the source folder of an editable install."""
    assert entry.dist is not None
    direct = entry.dist.read_text("direct_url.json")
    if direct:
        info = json.loads(direct)
        if info.get("dir_info", {}).get("editable"):
            return Path(unquote(urlparse(info["url"]).path)).resolve()
    return Path(str(entry.dist.locate_file(""))).resolve()
