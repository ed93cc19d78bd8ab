"""`EditActor`: a trained edit network with what it needs to be served, and the refiner that lets it add candidates.

    edit:PATH?noise=1&keep=0

An edit actor belongs to the critic that it was trained with: same observation, same scored steps, same action.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int

from critics.checkpoints import load_weights, weights_of
from critics.edit.network import EditConfig, EditNetwork
from critics.features import FeatureName, make_features
from critics.q_critic import QCritic, make_state
from critics.q_network import Embedded, State
from critics.refine import best_candidates
from steer.checkpoints import read_checkpoint, require_kind, write_checkpoint
from steer.critic import Critic, CriticSpec
from steer.errors import ConfigError, SpecError, UnsupportedError
from steer.noise import candidate_noise
from steer.options import integer, number, refuse_unknown
from steer.policy import Context
from steer.serial import from_json
from steer.spec import Array
from steer.transforms import Pipeline

KIND = "edit"
ORIGIN = "edit"
# The policy draws from the request's seed as it is; a stream of its own keeps the two independent.
_STREAM = np.int64(0xED17)


@dataclass(frozen=True)
class EditModel:
    """What a checkpoint's configuration holds. key, features: those of the critic."""

    edit: EditConfig
    features: FeatureName
    key: str


@dataclass(frozen=True)
class EditActor:
    """Proposes edits. spec: of the critic that it was trained with; transforms: of that critic's observation."""

    model: EditModel
    spec: CriticSpec
    transforms: Pipeline
    network: EditNetwork
    version: str = "untrained"

    @classmethod
    def load(cls, path: Path, device: torch.device | str = "cpu") -> EditActor:
        """Read a checkpoint folder; raises `CheckpointError` where it is damaged or does not fit."""
        checkpoint = read_checkpoint(path)
        require_kind(checkpoint, KIND)
        model = from_json(EditModel, checkpoint.config, f"{path}: config")
        spec = from_json(CriticSpec, checkpoint.spec, f"{path}: spec")
        network = make_network(model, spec, checkpoint.transforms)
        load_weights(network, checkpoint)
        return cls(model, spec, checkpoint.transforms, network.to(device).eval(), checkpoint.version)

    def save(self, path: Path, card: str = "") -> str:
        """Write a checkpoint folder; returns its version."""
        weights = weights_of(self.network)
        return write_checkpoint(
            path, kind=KIND, config=self.model, spec=self.spec, transforms=self.transforms, weights=weights, card=card
        )

    @torch.inference_mode()
    def edit(
        self,
        raw: Float[np.ndarray, "b n"],
        chunks: Float[np.ndarray, "b k e a"],
        noise: Float[np.ndarray, "b k e a"],
        committed: int = 0,
    ) -> Float[np.ndarray, "b k e a"]:
        """One edit of each chunk at B states, in robot units."""
        device = self.network.low.device
        state: State = make_state(self.transforms, self.model.key, raw).to(device)
        actions, drawn = (torch.from_numpy(np.ascontiguousarray(value)).to(device) for value in (chunks, noise))
        edited: Array = self.network(state, actions, drawn, committed).actions.cpu().numpy()
        return edited


def make_network(model: EditModel, spec: CriticSpec, transforms: Pipeline) -> EditNetwork:
    """An untrained network; the size of its input is what the transforms make of the state."""
    state = spec.observation[model.key]
    normalised = transforms.observe({model.key: np.zeros(state.shape, np.float32)})[model.key]
    features = make_features(model.features, state, spec.action, spec.prefixes[0])
    return EditNetwork(model.edit, features, spec.action, spec.prefixes[0], int(normalised.shape[-1]))


class EditRefiner:
    """`steer.refiner.Refiner`: one edited chunk beside each candidate that it edits.

    noise: of the edits, 1 as they were trained, 0 for their mean. keep: the best candidates to edit; 0: all, in their order.
    """

    def __init__(self, actor: EditActor, critic: QCritic, noise: float = 1.0, keep: int = 0) -> None:
        if noise < 0 or keep < 0:
            raise ConfigError(f"noise {noise}, keep {keep}: both must be 0 or more")
        _check_pair(actor.spec, critic.spec)
        self._actor, self._critic, self._noise, self._keep = actor, critic, noise, keep

    def refine(
        self,
        policy_context: Context,
        critic_context: Embedded,
        candidates: Float[np.ndarray, "b k h a"],
        seeds: Int[np.ndarray, " b"],
        executed: int,
        committed: int,
    ) -> tuple[Float[np.ndarray, "b k2 h a"], tuple[str, ...]]:
        """Edits of the candidates. Only steps that are scored and not committed move."""
        scored = self._critic.spec.scored_steps(executed)
        if committed >= scored:
            raise UnsupportedError(
                f"{committed} steps are committed, the critic scores {scored}: nothing is left to edit"
            )
        added = self._chosen(critic_context, candidates, scored)
        noise = candidate_noise(seeds ^ _STREAM, added.shape[1], (scored, candidates.shape[3]))
        raw = critic_context.raw.cpu().numpy()
        edited = self._actor.edit(raw, added[:, :, :scored], np.float32(self._noise) * noise, committed)
        added[:, :, committed:scored] = edited[:, :, committed:]
        return added, (ORIGIN,) * added.shape[1]

    def _chosen(self, context: Embedded, candidates: Float[np.ndarray, "b k h a"], scored: int) -> Array:
        """A copy of the candidates to edit."""
        if not self._keep or self._keep >= candidates.shape[1]:
            return candidates.copy()
        return best_candidates(self._critic, context, candidates, scored, self._keep)


def _check_pair(trained: CriticSpec, critic: CriticSpec) -> None:
    """Raise `SpecError` unless this critic is of the form that the actor was trained with."""
    problems = trained.action.differences(critic.action)
    for name in ("observation", "prefixes", "scores"):
        mine, its = getattr(trained, name), getattr(critic, name)
        if mine != its:
            problems = [*problems, f"{name}: the edit actor's is {mine}, the critic's is {its}"]
    if problems:
        raise SpecError("this edit actor was trained with another critic:\n  " + "\n  ".join(problems))


def create(critic: Critic, place: str, options: Mapping[str, str]) -> EditRefiner:
    """`edit:PATH?noise=1&keep=0`: for the registry, group `steer.refiners`."""
    refuse_unknown("refiner 'edit'", options, ("noise", "keep"))
    if not place:
        raise ConfigError("refiner 'edit' is a trained one: give its checkpoint folder, edit:PATH")
    if not isinstance(critic, QCritic):
        raise UnsupportedError("refiner 'edit' goes with critics of kind 'q'; this one is of another kind")
    actor = EditActor.load(Path(place), critic.device)
    return EditRefiner(actor, critic, number(options, "noise", 1.0), integer(options, "keep", 0))
