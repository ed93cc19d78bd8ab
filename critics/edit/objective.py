"""Training an edit actor beside its critic: soft actor-critic over edits, of the policy's own candidates.

    L = E[ alpha log p(edit | s, a) - mean_m Q_m(s, a + edit) ]        a: the policy's candidates, edit: drawn from the actor

alpha follows from the entropy that is wanted. The critic's weights stand still; it learns in its own updates, whose targets and
conservative term ask about edited candidates, too. The two take turns (`CriticObjective.step`): an actor that climbs for long on a
critic that stands still finds its errors, and played they fail.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from critics.edit.actor import EditActor, EditModel, make_network
from critics.edit.network import EditConfig, EditNetwork
from critics.q_network import QNetwork, State
from steer.errors import ConfigError
from steer.training.objective import Metrics, backward, share

if TYPE_CHECKING:
    from accelerate import Accelerator

    from critics.objective import CriticObjective
    from steer.data.sampling import Transitions


class EditLoss(nn.Module):
    """`forward` is the loss of one batch, the temperature's own part included."""

    def __init__(self, config: EditConfig, network: EditNetwork) -> None:
        super().__init__()
        self.network = network
        self.log_temperature = nn.Parameter(torch.tensor(math.log(config.initial_temperature)))
        self.target_entropy = config.target_entropy * math.prod(network.shape)

    def forward(
        self, q: QNetwork, state: State, actions: Float[Tensor, "b k e a"], noise: Float[Tensor, "b k e a"]
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """(loss, info)."""
        edited, log_prob, size = self.network(state, actions, noise)
        with torch.no_grad():
            embedded = q.embed(state)
            before = q.score(embedded, actions).mean(0)
        value = q.score(embedded, edited).mean(0)
        temperature = self.log_temperature.exp()
        actor_loss = (temperature.detach() * log_prob - value).mean()
        temperature_loss = -temperature * (log_prob.detach().mean() + self.target_entropy)
        info = {
            "q_edited": value.mean(),
            "gain": (value - before).mean(),
            "better": (value > before).float().mean(),
            "size": size.mean(),
            "entropy": -log_prob.mean() / math.prod(self.network.shape),
            "temperature": temperature,
        }
        return actor_loss + temperature_loss, {name: number.detach() for name, number in info.items()}


class EditObjective:
    """An edit actor in training. Implements `steer.training.objective.Objective` and `Placed`."""

    def __init__(self, config: EditConfig, critic: CriticObjective, seed: int = 0) -> None:
        """critic: the one in training that is climbed; the actor sees the state as this critic does."""
        self.config, self._critic = config, critic
        model = EditModel(config, critic.config.features, critic.config.key)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = make_network(model, critic.spec, critic.transforms)
        self.actor = EditActor(model, critic.spec, critic.transforms, network)
        self._module = EditLoss(config, network)
        self._loss: nn.Module = self._module
        groups: list[dict[str, Any]] = [
            {"params": network.parameters()},
            {"params": [self._module.log_temperature], "lr": config.temperature_learning_rate},
        ]
        self.optimizer = torch.optim.Adam(groups, config.learning_rate, fused=True)
        self._rng = np.random.default_rng(seed)
        self._followed = 0
        self._accelerator: Accelerator | None = None

    @property
    def network(self) -> EditNetwork:
        """The actor's network, which shares its weights with the training."""
        return self.actor.network

    def prepare(self, accelerator: Accelerator) -> None:
        """Move network and optimiser to the accelerator's device, precision and processes."""
        self._accelerator = accelerator
        self._loss, self.optimizer = accelerator.prepare(self._module, self.optimizer)

    def follow(self, batch: Transitions) -> Metrics:
        """Called after each update of the critic, with its batch: an update of the actor where one is due, and its metrics."""
        self._followed += 1
        return {} if self._followed % self.config.every else self.step(batch)

    def step(self, batch: Transitions) -> Metrics:
        """One update of the actor and of the temperature."""
        candidates, steps = batch.candidates, self.network.shape[0]
        if not candidates.shape[1]:
            raise ConfigError("there are no candidates to edit: give the policy's samples at every state")
        kept = self._rng.permutation(candidates.shape[1])[: self.config.candidates]
        chosen = candidates[:, kept, :steps]
        noise = self._rng.standard_normal(chosen.shape, np.float32)
        q = self._critic.network
        with _still(q):
            loss, info = self._loss(q, self._critic.state_of(batch.arrays), self._rows(chosen), self._rows(noise))
            self.optimizer.zero_grad()
            backward(loss, self._accelerator)
        self.optimizer.step()
        return {"loss": loss.detach(), **info}

    def state(self) -> Mapping[str, Any]:
        return {
            "module": self._module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": self._rng.bit_generator.state,
            "followed": self._followed,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self._module.load_state_dict(state["module"])
        # Torch would keep the very tensors it is given.
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self._rng.bit_generator.state = state["rng"]
        self._followed = state["followed"]

    def save(self, path: Path) -> str:
        """Write the actor as a checkpoint folder; returns its version."""
        config = self.config
        card = (
            f"# Edit actor\n\nEdits the first {self.network.shape[0]} steps of a proposed chunk by up to {config.scale:g} of half "
            "an axis's range, uphill on the critic it was trained with. Serve it with `--refine edit:PATH`.\n"
        )
        return self.actor.save(path, card)

    def _rows(self, value: np.ndarray) -> Tensor:
        return share(torch.from_numpy(np.ascontiguousarray(value, np.float32)), self._accelerator)


@contextmanager
def _still(network: nn.Module) -> Iterator[None]:
    """Without gradients for its weights; those for its inputs remain."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
