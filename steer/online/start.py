"""`Start`: the checkpoints that a run begins with, and the objectives and samplers that their families make of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float

from steer import registry
from steer.checkpoints import Checkpoint, read_checkpoint
from steer.data.frames import Frames
from steer.errors import ConfigError
from steer.model_name import ModelName
from steer.online.config import OnlineConfig
from steer.online.improve import ChunkSource
from steer.policy import Policy
from steer.serial import from_json
from steer.training.objective import Objective, Sampler


class OnlineCritic(Objective, Protocol):
    """What fine-tuning asks of a critic in training beside `Objective`."""

    def critic(self) -> Any:
        """The critic as it is now (`steer.critic.Critic`); it shares its weights with the training."""
        ...

    def learn_edits(self, scale: float, learning_rate: float, every: int, seed: int) -> None:
        """From now on an actor learns along, after every so many updates, to edit candidates uphill on the critic, which asks about
        its edits."""
        ...

    def save_edits(self, path: Path) -> str:
        """Write that actor as a checkpoint folder; returns its version."""
        ...

    def td_error(self, batch: Any) -> float: ...

    def parameter_norm(self) -> float: ...


@dataclass(frozen=True)
class Start:
    """Verified checkpoints and their families. policy_name: as given, so that an actor loads the base with its options."""

    policy_name: str
    policy: Checkpoint
    critic: Checkpoint
    policies: registry.Trainable
    critics: registry.Trainable
    policy_config: Any
    critic_config: Any

    @classmethod
    def load(cls, policy: str, critic: str, config: OnlineConfig) -> Start:
        """Raises `ConfigError` for a family that cannot be fine-tuned here, `CheckpointError` for a broken folder."""
        policy_checkpoint, policies, policy_config = _open(registry.POLICIES, policy)
        critic_checkpoint, critics, critic_config = _open(registry.CRITICS, critic)
        if not hasattr(critic_config, "for_online"):
            raise ConfigError(f"{critic}: critics of this kind cannot learn online: give one of kind 'q'")
        online = critic_config.for_online(
            conservative=config.conservative,
            target_subset=config.target_subset,
            batch_size=config.critic_batch_size,
            learning_rate=config.critic_learning_rate,
            members=config.members,
        )
        student = replace(
            policy_config,
            batch_size=config.policy_batch_size or policy_config.batch_size,
            learning_rate=config.policy_learning_rate or policy_config.learning_rate,
            ema_decay=config.policy_average,
            ema_warmup=False,
            warmup_steps=0,
            final_rate=1.0,
        )
        return cls(policy, policy_checkpoint, critic_checkpoint, policies, critics, student, online)

    @property
    def executed(self) -> int:
        """E, control steps of a decision: what the critic can score, or the whole chunk where it scores first actions."""
        executed: int = self.critic_config.prefix
        return executed

    @property
    def policy_batch_size(self) -> int:
        """Chunks per policy update."""
        rows: int = self.policy_config.batch_size
        return rows

    def base(self) -> Policy:
        """The frozen policy."""
        return registry.policy(self.policy_name)

    def policy_objective(self, frames: Frames, seed: int) -> Objective:
        objective: Objective = self.policies.objective(self.policy_config, frames, seed=seed, start=self.policy)
        return objective

    def critic_objective(
        self, frames: Frames, proposals: Float[np.ndarray, "f k h a"] | None, seed: int, fresh: bool
    ) -> OnlineCritic:
        start = None if fresh else self.critic
        if proposals is None:
            # Only their form is looked at.
            horizon, axes = self.policy_config.horizon, frames.actions.shape[1]
            proposals = np.zeros((0, 0, horizon, axes), np.float32)
        objective: OnlineCritic = self.critics.objective(self.critic_config, frames, proposals, seed=seed, start=start)
        return objective

    def transitions(self, rows: int, frames: Frames, proposals: Float[np.ndarray, "f k h a"], seed: int) -> Sampler:
        """See `steer.online.replay.MakeSampler`."""
        config = replace(self.critic_config, batch_size=rows)
        sampler: Sampler = self.critics.sampler(config, frames, proposals, seed=seed)
        return sampler

    def chunks(self, rows: int, frames: Frames, seed: int) -> ChunkSource:
        """See `steer.online.improve.MakeChunks`."""
        sampler: ChunkSource = self.policies.sampler(replace(self.policy_config, batch_size=rows), frames, seed=seed)
        return sampler


def _open(group: str, text: str) -> tuple[Checkpoint, registry.Trainable, Any]:
    """The checkpoint called `text`, how its family is trained, and its configuration."""
    name = ModelName.parse(text)
    trainable = registry.family(group, name.kind).trainable
    if trainable is None:
        raise ConfigError(f"{text}: models of kind {name.kind!r} are not trained here: give one that is")
    checkpoint = read_checkpoint(Path(name.place))
    return checkpoint, trainable, from_json(trainable.config, checkpoint.config, f"{name.place}: config")
