"""Gradient refinement: a few steps of ascent on Q from the best candidates (PA-RL's local optimisation, arXiv 2412.06685).

Adds candidates, never replaces the policy's own. A critic knows only what it was trained on: climbing far leaves the actions that
the policy would propose, and there Q means nothing. Few and small steps, and compare by episodes before trusting it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from critics.q_critic import QCritic
from critics.q_network import Embedded
from steer.critic import Critic
from steer.errors import ConfigError, UnsupportedError
from steer.options import integer, number, refuse_place, refuse_unknown
from steer.policy import Context
from steer.selection import reduce_scores
from steer.spec import Array

ORIGIN = "gradient"


class GradientRefiner:
    """`steer.refiner.Refiner` for a `QCritic`.

    keep: the best candidates to start from; each gives one more. steps, step_size: of the ascent, in units where every axis
    spans [-1, 1]. normalised: each step moves a chunk by `step_size` (Euclidean) whatever the slope; otherwise by
    step_size * gradient, as published (there 10 steps of 3e-4).
    """

    def __init__(
        self, critic: QCritic, steps: int = 5, step_size: float = 0.02, keep: int = 1, normalised: bool = True
    ) -> None:
        if steps < 1 or step_size <= 0 or keep < 1:
            raise ConfigError(f"steps {steps}, step_size {step_size}, keep {keep}: all must be positive")
        self._critic = critic
        self._steps, self._step_size, self._keep, self._normalised = steps, step_size, keep, normalised
        spec = critic.spec.action
        self._centre = torch.from_numpy((spec.high + spec.low) / 2).to(critic.device)
        self._half_range = torch.from_numpy((spec.high - spec.low) / 2).to(critic.device)

    def refine(
        self,
        policy_context: Context,
        critic_context: Embedded,
        candidates: Float[np.ndarray, "b k h a"],
        seeds: Int[np.ndarray, " b"],
        executed: int,
        committed: int,
    ) -> tuple[Float[np.ndarray, "b k2 h a"], tuple[str, ...]]:
        """The best `keep` candidates, moved uphill. Only steps that are scored and not committed move."""
        scored = self._critic.spec.scored_steps(executed)
        if committed >= scored:
            raise UnsupportedError(
                f"{committed} steps are committed, the critic scores {scored}: nothing is left to refine"
            )
        chosen = best_candidates(self._critic, critic_context, candidates, scored, self._keep)
        start = (torch.from_numpy(chosen).to(self._critic.device) - self._centre) / self._half_range
        fixed_head, free, tail = start[:, :, :committed], start[:, :, committed:scored], start[:, :, scored:]

        def q(moving: Tensor) -> Tensor:
            chunk = torch.cat((fixed_head, moving), 2) * self._half_range + self._centre
            return self._critic.score_tensor(critic_context, chunk).mean(0)

        one = torch.ones_like(self._centre)
        climbed, _, _ = climb(q, free, -one, one, self._steps, self._step_size, self._normalised)
        refined = torch.cat((fixed_head, climbed, tail), 2) * self._half_range + self._centre
        # Through [-1, 1] and back rounds; what must not move is taken from the candidate itself.
        added = np.concatenate(
            (chosen[:, :, :committed], refined.cpu().numpy()[:, :, committed:scored], chosen[:, :, scored:]), axis=2
        )
        return self._critic.spec.action.clip(added)[0], (ORIGIN,) * added.shape[1]


def best_candidates(
    critic: QCritic, context: Embedded, candidates: Float[np.ndarray, "b k h a"], scored: int, keep: int
) -> Float[np.ndarray, "b k2 h a"]:
    """A copy of the `keep` candidates with the highest mean Q of their first `scored` steps, the best first."""
    values = reduce_scores(critic.score(context, candidates[:, :, :scored]), "mean")
    best = np.argsort(-values, axis=1, kind="stable")[:, :keep]
    chosen: Array = np.take_along_axis(candidates, best[:, :, None, None], axis=1)
    return chosen


def climb(
    q: Callable[[Float[Tensor, "b k *n"]], Float[Tensor, "b k"]],
    actions: Float[Tensor, "b k *n"],
    low: Float[Tensor, " a"],
    high: Float[Tensor, " a"],
    steps: int,
    step_size: float,
    normalised: bool = False,
) -> tuple[Float[Tensor, "b k *n"], Float[Tensor, "b k"], Int[Tensor, "b k"]]:
    """a <- clip(a + step_size * dQ/da, low, high), `steps` times: the best actions seen, their Q, and at which step.

    The start counts as step 0, so Q never falls; a tie goes to the later step, as published.
    """
    current = actions.detach()
    best, best_q = current, actions.new_full(actions.shape[:2], -torch.inf)
    best_step = torch.zeros(actions.shape[:2], dtype=torch.int64, device=actions.device)
    for step in range(steps + 1):
        current = current.requires_grad_()
        value = q(current)
        (gradient,) = torch.autograd.grad(value.sum(), current)
        with torch.no_grad():
            better = value >= best_q
            shape = better.reshape(better.shape + (1,) * (current.ndim - 2))
            best, best_q = torch.where(shape, current, best), torch.where(better, value, best_q)
            best_step = torch.where(better, step, best_step)
            current = (current + step_size * _direction(gradient, normalised)).clamp(low, high)
    return best.detach(), best_q, best_step


def _direction(gradient: Float[Tensor, "b k *n"], normalised: bool) -> Float[Tensor, "b k *n"]:
    """The gradient, or with unit length per candidate."""
    if not normalised:
        return gradient
    length = torch.linalg.vector_norm(gradient.flatten(2), dim=-1).clamp_min(1e-12)
    unit: Tensor = gradient / length.reshape(length.shape + (1,) * (gradient.ndim - 2))
    return unit


def create(critic: Critic, place: str, options: Mapping[str, str]) -> GradientRefiner:
    """`gradient:?steps=5&step_size=0.02&keep=1`: for the registry, group `steer.refiners`."""
    refuse_place("refiner 'gradient'", place)
    refuse_unknown("refiner 'gradient'", options, ("steps", "step_size", "keep"))
    if not isinstance(critic, QCritic):
        raise UnsupportedError("refiner 'gradient' climbs critics of kind 'q'; this one is of another kind")
    return GradientRefiner(
        critic, integer(options, "steps", 5), number(options, "step_size", 0.02), integer(options, "keep", 1)
    )
