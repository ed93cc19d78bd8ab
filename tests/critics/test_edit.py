"""The edit actor learns what its critic prefers, within its reach, and the critic's targets ask about its edits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from critics.edit.actor import EditActor, EditRefiner
from critics.edit.network import EditConfig
from critics.edit.objective import EditObjective
from critics.objective import CriticObjective, sampler
from steer.checkpoints import read_checkpoint
from steer.data.sampling import TransitionSampler
from steer.errors import CheckpointError, ConfigError, SpecError
from tests.critics.toys import ACTION, candidates_of, chunks_of, frames_of, make_objective, observe, rewards_of, tiny

SMALL = EditConfig(scale=0.1, hidden=(16,), learning_rate=3e-3)
HALF_RANGE = (ACTION.high - ACTION.low) / 2


def batches(config: Any = None, seed: int = 0) -> TransitionSampler:
    frames = frames_of(rewards_of([9, 12], [True, False]))
    return sampler(config or tiny(), frames, candidates_of(frames), seed)


def test_edits_come_to_please_the_critic_and_stay_within_their_reach(tmp_path: Path) -> None:
    objective = make_objective(tiny())
    editor, stream = EditObjective(replace(SMALL, target_entropy=-2.0), objective), batches()
    first = editor.step(stream.sample())
    for _ in range(150):
        last = editor.step(stream.sample())
    editor.save(tmp_path / "edit")

    assert float(last["gain"]) > float(first["gain"]) + 1e-3
    assert float(last["better"]) > 0.9
    critic = objective.critic()
    refiner = EditRefiner(EditActor.load(tmp_path / "edit"), critic, noise=0.0)
    context, candidates = critic.encode(observe(8)), chunks_of(8, 5, 4)
    added, _ = refiner.refine(None, context, candidates, np.arange(8), 4, 0)
    assert (np.abs(added - candidates) / HALF_RANGE <= SMALL.scale + 1e-5).all()
    better = critic.score(context, added).mean(0) > critic.score(context, candidates).mean(0)
    assert better.mean() > 0.75


def test_before_training_an_edit_is_noise_of_the_wanted_entropy() -> None:
    editor = EditObjective(SMALL, make_objective(tiny()))
    entropies = [float(editor.step(batch)["entropy"]) for batch in [batches().sample()] * 5]
    assert np.mean(entropies) == pytest.approx(SMALL.target_entropy, abs=0.1)
    state = editor._critic.state_of({"state": observe(1).arrays["state"]})
    chunk = torch.from_numpy(chunks_of(1, 1, 4))
    fresh = EditObjective(SMALL, make_objective(tiny()))
    torch.testing.assert_close(fresh.network(state, chunk, torch.zeros_like(chunk)).actions, chunk)


def test_the_critic_stands_still_while_its_actor_learns() -> None:
    objective = make_objective(tiny())
    before = [parameter.detach().clone() for parameter in objective.network.parameters()]
    EditObjective(SMALL, objective).step(batches().sample())
    for parameter, value in zip(objective.network.parameters(), before, strict=True):
        assert torch.equal(parameter, value)
        assert parameter.grad is None
        assert parameter.requires_grad


@pytest.mark.parametrize("algorithm", ["calql", "td"])
def test_targets_and_the_conservative_term_ask_about_edits(algorithm: Any) -> None:
    config = tiny(algorithm=algorithm, backup_candidates=3, penalty_candidates=2)
    objective, batch = make_objective(config), batches(config).sample()
    penalised = 2 if algorithm == "calql" else 0
    plain = objective.critic_batch(batch)
    assert (plain.next_actions.shape[1], plain.other_actions.shape[1]) == (3, penalised)

    objective.learn_edits(0.1, 3e-4, 1, 0)
    rows = objective.critic_batch(batch)

    assert (rows.next_actions.shape[1], rows.other_actions.shape[1]) == (6, 2 * penalised)
    moved = (rows.next_actions[:, 3:] - rows.next_actions[:, :3]).abs() / torch.from_numpy(HALF_RANGE)
    assert 0 < float(moved.max()) <= 0.1 + 1e-5
    objective.step(batch)


def test_critic_and_actor_take_turns() -> None:
    critic, stream = make_objective(tiny()), batches()
    with pytest.raises(ConfigError, match="no edit actor"):
        critic.save_edits(Path("nowhere"))
    critic.learn_edits(0.1, 3e-3, 3, 1)
    assert ["edit_gain" in critic.step(stream.sample()) for _ in range(6)] == [False, False, True] * 2


def test_a_restored_actor_goes_on_with_the_same_losses() -> None:
    def made() -> CriticObjective:
        critic = make_objective(tiny())
        critic.learn_edits(0.1, 3e-3, 2, 1)
        return critic

    def losses(critic: CriticObjective, stream: TransitionSampler) -> list[dict[str, float]]:
        return [{name: float(value) for name, value in critic.step(stream.sample()).items()} for _ in range(6)]

    critic, stream = made(), batches()
    for _ in range(5):
        critic.step(stream.sample())
    kept, position = critic.state(), stream.state()
    again, other = batches(), made()
    # As from the disk: states share nothing with those that go on.
    kept = torch.utils._pytree.tree_map(lambda v: v.clone() if isinstance(v, torch.Tensor) else v, kept)
    expected = losses(critic, stream)
    assert sum("edit_loss" in metrics for metrics in expected) == 3

    again.restore(position)
    other.restore(kept)
    assert losses(other, again) == expected


def test_another_critic_is_refused(tmp_path: Path) -> None:
    EditObjective(SMALL, make_objective(tiny())).save(tmp_path / "edit")
    actor = EditActor.load(tmp_path / "edit")
    with pytest.raises(SpecError, match=r"prefixes: the edit actor's is \(4,\), the critic's is \(3,\)"):
        EditRefiner(actor, make_objective(tiny(prefix=3)).critic())
    with pytest.raises(ConfigError, match="0 or more"):
        EditRefiner(actor, make_objective(tiny()).critic(), noise=-1)
    assert read_checkpoint(tmp_path / "edit").kind == "edit"
    (tmp_path / "edit" / "weights.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="truncated or changed"):
        EditActor.load(tmp_path / "edit")


def test_only_the_best_are_edited_where_so_many_are_asked_for(tmp_path: Path) -> None:
    objective = make_objective(tiny())
    EditObjective(SMALL, objective).save(tmp_path / "edit")
    critic = objective.critic()
    context, candidates = critic.encode(observe(2)), chunks_of(2, 5, 4)
    refiner = EditRefiner(EditActor.load(tmp_path / "edit"), critic, noise=0.0, keep=2)

    added, origins = refiner.refine(None, context, candidates, np.arange(2), 4, 0)

    assert origins == ("edit", "edit")
    # Untrained, the mean edit is none: what comes back are the two best.
    best = np.argsort(-critic.score(context, candidates).mean(0), axis=1)[:, :2]
    np.testing.assert_allclose(added, np.take_along_axis(candidates, best[:, :, None, None], 1), atol=1e-7)
