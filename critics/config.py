"""Settings of a critic and of its training, and the parts that they stand for. The defaults are the recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import numpy as np

from critics.calql import CalQL, CalQLConfig
from critics.features import FeatureName, make_features
from critics.heads import Head, HLGauss, HLGaussConfig, MeanSquared
from critics.mc import MonteCarlo
from critics.q_network import QNetwork
from critics.td import TD
from steer.critic import CriticSpec
from steer.errors import ConfigError
from steer.observation import ObservationSpec
from steer.robot import RobotSpec
from steer.transforms import Pipeline

Algorithm: TypeAlias = CalQL | TD | MonteCarlo


@dataclass(frozen=True)
class CriticConfig:
    """One critic: what it sees, how it is built, and how it learns."""

    algorithm: Literal["calql", "cql", "td", "mc"] = "calql"
    """calql: conservative and calibrated; cql: not calibrated; td: not conservative; mc: regression on returns."""
    features: FeatureName = "reached_poses"
    """reached_poses: where the chunk leads, from the names of entries and axes; raw: the numbers alone."""
    head: Literal["mse", "hl_gauss"] = "mse"
    """A scalar, or a histogram fitted by cross-entropy."""
    scores: Literal["executed", "first_action"] = "executed"
    """Score everything that will be executed, or step 0 alone, as V-GPS published."""
    prefix: int = 4
    """E, control steps that are executed per decision; the only length this critic will score."""
    key: str = "state"
    """The observation vector that the critic reads."""
    members: int = 2
    """M, independent networks (V-GPS: 2, PA-RL and WSRL: 10)."""
    hidden: tuple[int, ...] = (256, 256)
    """Widths of the hidden layers."""
    reduction: Literal["min", "mean", "lower_bound"] = "mean"
    """How the members are used by default (PA-RL: mean, V-GPS: min)."""
    gamma: float = 0.98
    """Discount per control step."""
    steps: int = 4000
    """Updates."""
    batch_size: int = 256
    """Transitions per update."""
    learning_rate: float = 3e-4
    """Adam."""
    target_rate: float = 0.005
    """Polyak averaging of the target network, after each update."""
    backup_candidates: int = 4
    """The policy's cached candidates that the target's maximum runs over, chosen anew each step."""
    penalty_candidates: int = 4
    """The policy's cached candidates in the conservative term, chosen anew each step."""
    near_field_m: float = 0.04
    """Scale of the near-field entries of named displacements."""
    outcomes: Literal["observed", "permuted"] = "observed"
    """permuted: a control; rewards are dealt out at random, so that nothing can be learnt but what data looks like."""
    calql: CalQLConfig = field(default_factory=CalQLConfig)
    """The conservative term and the backup (td uses the backup alone)."""
    mse: MeanSquared = field(default_factory=MeanSquared)
    """The scalar head."""
    hl_gauss: HLGaussConfig = field(default_factory=HLGaussConfig)
    """The histogram head."""

    def __post_init__(self) -> None:
        if not 0 < self.gamma < 1:
            raise ConfigError(f"gamma is {self.gamma}, expected between 0 and 1")
        for name in ("prefix", "members", "batch_size", "backup_candidates", "penalty_candidates"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected at least 1")
        if not self.hidden or min(self.hidden) < 1:
            raise ConfigError(f"hidden is {self.hidden}, expected at least one positive width")

    def for_online(
        self, *, conservative: bool, target_subset: int, batch_size: int, learning_rate: float, members: int = 0
    ) -> CriticConfig:
        """The same critic, learning while the robot works.

        conservative: keep the loss as it is; else plain temporal differences, as WSRL and RLPD have. target_subset: members
        that the lowest target runs over (0: as configured; at most those that there are). members: of a critic that starts
        anew (0: as configured).
        """
        target, algorithm, members = self.calql.backup, self.algorithm, members or self.members
        if target_subset:
            target = replace(target, members="min", subset=min(target_subset, members))
        if not conservative:
            algorithm = "td"
        return replace(
            self,
            algorithm=algorithm,
            members=members,
            calql=replace(self.calql, backup=target),
            batch_size=batch_size,
            learning_rate=learning_rate,
        )

    @property
    def scored_steps(self) -> int:
        """Steps of a chunk that the network sees."""
        return 1 if self.scores == "first_action" else self.prefix

    def make_head(self) -> Head:
        return self.mse if self.head == "mse" else HLGauss(self.hl_gauss)


def make_spec(config: CriticConfig, robot: RobotSpec) -> CriticSpec:
    """What this critic will say of itself."""
    return CriticSpec(
        observation=ObservationSpec((robot.observation[config.key],)),
        action=robot.action,
        prefixes=(config.scored_steps,),
        members=config.members,
        gamma=config.gamma,
        reduction=config.reduction,
        scores=config.scores,
        differentiable=True,
    )


def make_network(config: CriticConfig, spec: CriticSpec, transforms: Pipeline) -> QNetwork:
    """An untrained network for a spec; the size of its input is what the transforms make of the state."""
    state = spec.observation[config.key]
    if len(state.shape) != 1 or state.shape[0] < 1:
        raise ConfigError(
            f"{config.key!r} has shape {state.shape}, expected a vector of fixed length: set `key` to the state"
        )
    normalised = transforms.observe({config.key: np.zeros(state.shape, np.float32)})[config.key]
    features = make_features(config.features, state, spec.action, config.scored_steps)
    return QNetwork(features, config.make_head(), config.members, int(normalised.shape[-1]), config.hidden)


def make_algorithm(config: CriticConfig, network: QNetwork) -> Algorithm:
    """The loss module around the network, with its target network where it has one."""
    makers: dict[str, Callable[[], Algorithm]] = {
        "calql": lambda: CalQL(config.calql, network),
        "cql": lambda: CalQL(replace(config.calql, calibrated=False), network),
        "td": lambda: TD(config.calql.backup, network),
        "mc": lambda: MonteCarlo(network),
    }
    return makers[config.algorithm]()
