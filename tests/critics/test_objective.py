"""Training: it learns what can be known, repeats itself, resumes exactly, and its control knows nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from critics.calql import CalQL
from critics.config import CriticConfig
from critics.objective import CriticObjective, objective, permute_outcomes, sampler
from steer.data.frames import Frames
from steer.errors import ConfigError
from tests.critics.toys import candidates_of, frames_of, rewards_of, tiny

LENGTHS = [10, 14, 9, 12, 11, 13]
OUTCOMES = [True, False, True, False, True, False]


@pytest.fixture
def frames() -> Frames:
    return frames_of(rewards_of(LENGTHS, OUTCOMES))


def run(config: CriticConfig, frames: Frames, steps: int, seed: int = 0) -> CriticObjective:
    candidates = candidates_of(frames)
    made, batches = objective(config, frames, candidates, seed), sampler(config, frames, candidates, seed)
    for _ in range(steps):
        made.step(batches.sample())
    return made


def weights(made: CriticObjective) -> list[np.ndarray]:
    return [value.numpy().copy() for value in made.network.state_dict().values()]


@pytest.mark.parametrize("algorithm", ["calql", "cql", "td", "mc"])
@pytest.mark.parametrize("head", ["mse", "hl_gauss"])
def test_every_algorithm_lowers_its_error(algorithm: Any, head: Any, frames: Frames) -> None:
    config = tiny(algorithm=algorithm, head=head, learning_rate=3e-3)
    candidates = candidates_of(frames)
    made, batches = objective(config, frames, candidates), sampler(config, frames, candidates)
    losses = [float(made.step(batches.sample())["td_loss"]) for _ in range(60)]
    assert np.isfinite(losses).all()
    assert np.mean(losses[-10:]) < np.mean(losses[:10])


def test_members_share_no_weights_and_no_gradients() -> None:
    made = run(tiny(members=3), frames_of(rewards_of(LENGTHS, OUTCOMES)), steps=0)
    members = made.network.ensemble.members
    storages = {p.data_ptr() for member in members for p in member.parameters()}
    assert len(storages) == len(list(made.network.parameters()))
    embedded = made.network.ensemble.embed(torch.zeros(1, members[0].from_state.in_features))
    members[1](embedded[1], torch.zeros(1, 1, members[0].from_action.in_features)).sum().backward()
    assert all(p.grad is None or not p.grad.any() for m in (0, 2) for p in members[m].parameters())


def test_of_a_subset_the_other_members_are_not_asked(frames: Frames) -> None:
    config = tiny(members=3)
    candidates = candidates_of(frames)
    made = objective(config, frames, candidates)
    batch = made.critic_batch(sampler(config, frames, candidates).sample())
    every = made.network(batch.next_state, batch.next_actions)
    asked: list[int] = []
    for number, member in enumerate(made.network.ensemble.members):
        member.register_forward_pre_hook(lambda *_, number=number: asked.append(number))
    torch.testing.assert_close(made.network(batch.next_state, batch.next_actions, [2, 0, 2]), every[[2, 0, 2]])
    assert asked == [2, 0, 2]


def test_targets_follow_slowly_and_get_no_gradient(frames: Frames) -> None:
    made = run(tiny(target_rate=0.5), frames, steps=1)
    algorithm = made.algorithm
    assert isinstance(algorithm, CalQL)
    assert all(p.grad is None and not p.requires_grad for p in algorithm.target.parameters())
    assert any(
        not torch.equal(p, q) for p, q in zip(algorithm.target.parameters(), made.network.parameters(), strict=True)
    )


def test_the_same_seed_gives_the_same_weights(frames: Frames) -> None:
    one, two, other = run(tiny(), frames, 5), run(tiny(), frames, 5), run(tiny(), frames, 5, seed=1)
    assert all(np.array_equal(a, b) for a, b in zip(weights(one), weights(two), strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))


def test_making_an_objective_leaves_the_global_generator_alone(frames: Frames) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    objective(tiny(), frames, candidates_of(frames), seed=9)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("changes", [{}, {"outcomes": "permuted"}, {"algorithm": "td", "head": "hl_gauss"}])
def test_a_restored_run_goes_on_bit_for_bit(changes: dict[str, Any], frames: Frames) -> None:
    config, candidates = tiny(**changes), candidates_of(frames)
    whole, batches = objective(config, frames, candidates), sampler(config, frames, candidates)
    for _ in range(4):
        whole.step(batches.sample())
    kept, position = whole.state(), batches.state()
    kept = torch.utils._pytree.tree_map(lambda v: v.clone() if isinstance(v, torch.Tensor) else v, kept)
    for _ in range(3):
        whole.step(batches.sample())
    resumed, again = objective(config, frames, candidates, seed=5), sampler(config, frames, candidates, seed=5)
    resumed.restore(kept)
    again.restore(position)
    for _ in range(3):
        resumed.step(again.sample())
    assert all(np.array_equal(a, b) for a, b in zip(weights(whole), weights(resumed), strict=True))


def test_calql_keeps_unseen_actions_above_the_return_where_cql_does_not(frames: Frames) -> None:
    info = {}
    for algorithm in ("calql", "cql"):
        config = tiny(algorithm=algorithm, learning_rate=3e-3)
        candidates = candidates_of(frames)
        made, batches = objective(config, frames, candidates), sampler(config, frames, candidates)
        for _ in range(100):
            info[algorithm] = made.step(batches.sample())
    assert info["cql"]["q_other"] < info["calql"]["q_other"] < info["calql"]["q_data"]


def test_candidates_are_needed_but_for_mc(frames: Frames) -> None:
    with pytest.raises(ConfigError, match="cached candidates"):
        objective(tiny(), frames, None)
    with pytest.raises(ConfigError, match="lower the prefix"):
        objective(tiny(prefix=7), frames, candidates_of(frames, horizon=6))
    objective(tiny(algorithm="mc"), frames, None)
    batches = sampler(tiny(), frames, None)
    with pytest.raises(ConfigError, match="cached candidates"):
        objective(tiny(), frames, candidates_of(frames)).step(batches.sample())


def test_each_step_chooses_among_the_cached_candidates(frames: Frames) -> None:
    config, candidates = tiny(penalty_candidates=2, backup_candidates=3), candidates_of(frames)
    made, batch = objective(config, frames, candidates), sampler(config, frames, candidates).sample()
    draws = [made.critic_batch(batch) for _ in range(6)]
    assert draws[0].other_actions.shape[1] == 2
    assert draws[0].next_actions.shape[1] == 3
    assert len({float(draw.other_actions.sum()) for draw in draws}) > 1


def test_first_action_hands_the_network_one_step_but_backs_up_over_the_prefix(frames: Frames) -> None:
    config, candidates = tiny(scores="first_action"), candidates_of(frames)
    made, batch = objective(config, frames, candidates), sampler(config, frames, candidates).sample()
    got = made.critic_batch(batch)
    assert got.actions.shape[1] == got.other_actions.shape[2] == 1
    np.testing.assert_array_equal(got.bootstrap.numpy(), batch.bootstrap)
    assert np.isclose(batch.bootstrap, 0.98**4).any()


def test_permuted_outcomes_depend_on_nothing() -> None:
    rewards = np.array([0, 0, 1, 0.9], np.float32)
    returns = np.array([0.5, 0, 1, 0.9], np.float32)
    dealt, bootstrap, floors = permute_outcomes(rewards, returns, 0.92, np.random.default_rng(0))
    assert sorted(dealt) == sorted(rewards)
    assert {(r, g) for r, g in zip(dealt, floors, strict=True)} == {
        (r, g) for r, g in zip(rewards, returns, strict=True)
    }
    # No terminal is left, and every transition discounts alike.
    assert bootstrap.tolist() == pytest.approx([0.92] * 4)


def test_an_accelerator_on_the_cpu_changes_nothing(frames: Frames) -> None:
    candidates = candidates_of(frames)
    plain, prepared = objective(tiny(), frames, candidates), objective(tiny(), frames, candidates)
    prepared.prepare(Accelerator(cpu=True))
    one, two = sampler(tiny(), frames, candidates), sampler(tiny(), frames, candidates)
    for _ in range(3):
        plain.step(one.sample())
        prepared.step(two.sample())
    assert all(np.array_equal(a, b) for a, b in zip(weights(plain), weights(prepared), strict=True))
