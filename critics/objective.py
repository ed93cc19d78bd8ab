"""Training a critic: `CriticObjective` turns transitions into one update, for the loop in `steer.training`.

The out-of-data actions and the actions of the backup are the base policy's own cached candidates: these are what the critic
will be asked about, so these are what it is trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from critics.batch import CriticBatch
from critics.checkpoints import load_weights
from critics.config import CriticConfig, make_algorithm, make_network, make_spec
from critics.edit.network import EditConfig
from critics.edit.objective import EditObjective
from critics.mc import MonteCarlo
from critics.q_critic import KIND, QCritic
from critics.q_network import State
from critics.td import backup
from critics.terms import polyak, random_subset
from steer.checkpoints import Checkpoint, require_kind
from steer.critic import CriticSpec
from steer.data.frames import Frames
from steer.data.sampling import Transitions, TransitionSampler
from steer.errors import ConfigError, SpecError
from steer.normalize import fit_vector
from steer.robot import RobotSpec
from steer.serial import from_json
from steer.spec import Array
from steer.steering import check_compatible
from steer.training.objective import Metrics, backward, share
from steer.transforms import NearField, Pipeline

if TYPE_CHECKING:
    from accelerate import Accelerator


class CriticObjective:
    """A critic in training. Implements `steer.training.objective.Objective` and `Placed`."""

    def __init__(self, config: CriticConfig, frames: Frames, seed: int = 0, start: Checkpoint | None = None) -> None:
        """start: a checkpoint of this family to continue from. Its transforms with their statistics and its weights are taken
        over; targets and optimiser start afresh, and the algorithm may be another one.

        Raises `SpecError` where the robot does not fit, and `CheckpointError` where `start` does not.
        """
        self.config = config
        self.transforms = fit_transforms(config, frames) if start is None else start.transforms
        self.spec = make_spec(config, frames.robot)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = make_network(config, self.spec, self.transforms)
        if start is not None:
            self._take_over(start, frames.robot)
        self.algorithm = make_algorithm(config, self.network)
        trained = [parameter for parameter in self.algorithm.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.Adam(trained, config.learning_rate, fused=True)
        self._loss: torch.nn.Module = self.algorithm
        self._accelerator: Accelerator | None = None
        self.editor: EditObjective | None = None
        """An edit actor that learns along; targets and conservative term ask about its edits beside the candidates themselves."""
        self._rng = np.random.default_rng(seed)
        self._data = f"{len(frames.lengths)} episodes ({int(frames.success.sum())} successful), {int(frames.lengths.sum())} steps"

    def prepare(self, accelerator: Accelerator) -> None:
        """Move networks and optimisers to the accelerator's device, precision and processes."""
        self._accelerator = accelerator
        self._loss, self.optimizer = accelerator.prepare(self.algorithm, self.optimizer)
        if self.editor is not None:
            self.editor.prepare(accelerator)

    def step(self, batch: Transitions) -> Metrics:
        """One update of the networks, then of the targets, then of the edit actor where it is due."""
        loss, info = self._loss(self.critic_batch(batch))
        self.optimizer.zero_grad()
        backward(loss, self._accelerator)
        self.optimizer.step()
        if not isinstance(self.algorithm, MonteCarlo):
            polyak(self.algorithm.target.parameters(), self.network.parameters(), self.config.target_rate)
        edited = {} if self.editor is None else self.editor.follow(batch)
        return {"loss": loss.detach(), **info, **{f"edit_{name}": value for name, value in edited.items()}}

    def critic_batch(self, batch: Transitions) -> CriticBatch:
        """Tensors of one batch of transitions, with this step's choice of candidates."""
        config, steps = self.config, self.config.scored_steps
        rewards, bootstrap, returns = batch.rewards, batch.bootstrap, batch.mc_returns
        if config.outcomes == "permuted":
            rewards, bootstrap, returns = permute_outcomes(rewards, returns, config.gamma**config.prefix, self._rng)
        penalised = config.penalty_candidates if config.algorithm in ("calql", "cql") else 0
        backed_up = config.backup_candidates if config.algorithm != "mc" else 0
        subset = config.calql.backup.subset
        state, next_state = self.state_of(batch.arrays), self.state_of(batch.next_arrays)
        next_actions = self._choose(batch.next_candidates, batch.actions, backed_up)[:, :, :steps]
        other_actions = self._choose(batch.candidates, batch.actions, penalised)[:, :, :steps]
        return CriticBatch(
            state=state,
            actions=self._rows(batch.actions[:, :steps]),
            rewards=self._rows(rewards),
            bootstrap=self._rows(bootstrap),
            returns=self._rows(returns),
            next_state=next_state,
            next_actions=self._with_edits(next_state, next_actions),
            other_actions=self._with_edits(state, other_actions),
            target_members=self._subset(subset) if subset else None,
        )

    @torch.no_grad()
    def td_error(self, batch: Transitions) -> float:
        """Mean |Q - y| over the members, without an update: on new and on replayed data it tells over-fitting."""
        rng = self._rng.bit_generator.state
        rows = self.critic_batch(batch)
        self._rng.bit_generator.state = rng
        values = self.network.head.values(self.network(rows.state, rows.actions[:, None]))[:, :, 0]
        if isinstance(self.algorithm, MonteCarlo):
            return float((values - rows.returns).abs().mean())
        targets = backup(self.config.calql.backup, self.algorithm.target, rows, len(values))
        return float((values - targets).abs().mean())

    def parameter_norm(self) -> float:
        """Euclidean norm of the weights: where it grows without end, plasticity is lost."""
        return float(torch.nn.utils.get_total_norm(list(self.network.parameters())))

    def state(self) -> Mapping[str, Any]:
        return {
            "algorithm": self.algorithm.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": self._rng.bit_generator.state,
            **({} if self.editor is None else {"editor": self.editor.state()}),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.algorithm.load_state_dict(state["algorithm"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._rng.bit_generator.state = state["rng"]
        if self.editor is not None:
            self.editor.restore(state["editor"])

    def learn_edits(self, scale: float, learning_rate: float, every: int, seed: int) -> None:
        """From now on an edit actor learns to climb this critic, which asks about its edits (EXPO, arXiv 2507.07986).

        scale, learning_rate, every: see `EditConfig`.
        """
        self.editor = EditObjective(EditConfig(scale=scale, learning_rate=learning_rate, every=every), self, seed)

    def critic(self) -> QCritic:
        """The critic as it is now; it shares its weights with the training."""
        return QCritic(self.config, self.spec, self.transforms, self.network)

    def save(self, path: Path) -> str:
        config = self.config
        card = (
            f"# Critic ({config.algorithm})\n\n{config.members} members, features {config.features}, head {config.head}; "
            f"scores {config.scored_steps} steps. Trained on {self._data}.\n"
        )
        return self.critic().save(path, card)

    def save_edits(self, path: Path) -> str:
        """Write the edit actor as a checkpoint folder; returns its version."""
        if self.editor is None:
            raise ConfigError("there is no edit actor to save: let one learn first")
        return self.editor.save(path)

    def _take_over(self, start: Checkpoint, robot: RobotSpec) -> None:
        """The checkpoint's weights, once it is found to be this critic for this robot."""
        require_kind(start, KIND)
        had = from_json(CriticSpec, start.spec, f"{start.path}: spec")
        check_compatible(robot, None, had)
        if self.spec.prefixes != had.prefixes or self.spec.scores != had.scores:
            raise SpecError(
                f"{start.path}: scores {had.scores} over {list(had.prefixes)} steps, asked for {self.spec.scores} over "
                f"{list(self.spec.prefixes)}: give its own to continue"
            )
        load_weights(self.network, start)

    def state_of(self, arrays: Mapping[str, Array]) -> State:
        """This process's share of the states, as the network takes them."""
        raw = arrays[self.config.key][:, -1]
        normalised = self.transforms.observe({self.config.key: raw})[self.config.key]
        return State(self._rows(raw), self._rows(normalised))

    def _rows(self, value: Array) -> Tensor:
        """This process's share of the rows, as a tensor on its device."""
        return share(torch.from_numpy(np.ascontiguousarray(value, np.float32)), self._accelerator)

    def _choose(self, candidates: Array, actions: Array, count: int) -> Array:
        """`count` of the K cached candidates, other ones each step; none of them where none are asked for."""
        if not count:
            return actions[:, None][:, :0]
        if not candidates.shape[1]:
            raise ConfigError(
                f"{self.config.algorithm} needs the policy's cached candidates at every state: give a policy, or train with mc"
            )
        kept = self._rng.permutation(candidates.shape[1])[:count]
        return candidates[:, kept]

    def _with_edits(self, state: State, actions: Array) -> Tensor:
        """The actions and, where there is an edit actor, one edit of each."""
        rows = self._rows(actions)
        if self.editor is None or not actions.shape[1]:
            return rows
        noise = self._rows(self._rng.standard_normal(actions.shape, np.float32))
        with torch.no_grad():
            return torch.cat((rows, self.editor.network(state, rows, noise).actions), 1)

    def _subset(self, size: int) -> list[int]:
        chosen = random_subset(self.config.members, size, self._rng, self.config.calql.backup.subset_replacement)
        numbers: list[int] = chosen.tolist()
        return numbers


def objective(
    config: CriticConfig,
    frames: Frames,
    candidates: Float[np.ndarray, "f k h a"] | None = None,
    seed: int = 0,
    start: Checkpoint | None = None,
) -> CriticObjective:
    """The objective of a config and its data, or of one that continues from `start`, see `CriticObjective`.

    `candidates` must be there for all but mc; the sampler hands them out.
    """
    if candidates is None and config.algorithm != "mc":
        raise ConfigError(f"{config.algorithm} needs the policy's cached candidates: give a policy, or train with mc")
    if candidates is not None and candidates.shape[2] < config.prefix:
        raise ConfigError(
            f"candidates have {candidates.shape[2]} steps, the prefix is {config.prefix}: lower the prefix"
        )
    return CriticObjective(config, frames, seed, start)


def sampler(
    config: CriticConfig, frames: Frames, candidates: Float[np.ndarray, "f k h a"] | None = None, seed: int = 0
) -> TransitionSampler:
    """The transitions that the objective expects: the key that the critic reads, its newest frame, prefix and discount."""
    return TransitionSampler(
        frames,
        prefix=config.prefix,
        gamma=config.gamma,
        window=1,
        batch_size=config.batch_size,
        seed=seed,
        candidates=candidates,
        keys=(config.key,),
    )


def fit_transforms(config: CriticConfig, frames: Frames) -> Pipeline:
    """Near-field entries of the named displacements, then normalisation by the data's statistics."""
    values = {config.key: frames.observations[config.key]}
    near = NearField.of(frames.robot.observation, config.key, config.near_field_m)
    steps = (near,) if near.entries else ()
    return Pipeline((*steps, fit_vector(config.key, Pipeline(steps).observe(values)[config.key])))


def permute_outcomes(
    rewards: Float[np.ndarray, " b"], returns: Float[np.ndarray, " b"], bootstrap: float, rng: np.random.Generator
) -> tuple[Array, Array, Array]:
    """Rewards, bootstraps and returns of a control that knows no outcomes.

    Exchanging outcomes between whole episodes leaks them: successful episodes end early, so where an episode ends, how many
    rewards a window sums and how far a return reaches all still tell success. Dealing them out over the transitions of each
    batch, with one bootstrap for all and no terminal, leaves nothing that depends on the state: the fixed point of the backup
    is a constant. What can still be learnt is only the conservative term's preference for what data looks like.
    """
    order = rng.permutation(len(rewards))
    return rewards[order], np.full_like(rewards, bootstrap), returns[order]
