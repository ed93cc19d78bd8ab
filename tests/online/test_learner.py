"""The learner over prepared episodes, in this process: what a round does, and that it can be cut anywhere."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from steer import registry
from steer.checkpoints import read_checkpoint
from steer.data.store import EpisodeStore
from steer.decision import Request
from steer.errors import CheckpointError, ConfigError
from steer.online.config import Improve
from steer.online.publish import Versions
from steer.training.loop import TrainingInterrupted
from tests.fakes import ROBOT
from tests.online.toys import Run, make_episode


def weights(run: Run) -> list[torch.Tensor]:
    state = run.learner._critic.state()["algorithm"]
    return [value.clone() for value in state.values()]


def test_rounds_update_publish_and_tell(models: Path, tmp_path: Path) -> None:
    run = Run(models, tmp_path / "run")
    run.learner.run(5)

    # Two decisions of four steps per episode of eight; UTD 2 and 1.
    assert [(r.version, r.episodes, r.critic_updates, r.policy_updates) for r in run.rounds] == [
        (1, 2, 8, 4),
        (2, 4, 16, 8),
        (3, 5, 20, 10),
    ]
    assert run.source.asked == [(2, 0, True), (4, 1, True), (5, 2, True)]
    assert run.rounds[-1].robot_minutes == pytest.approx(5 * 8 / 20 / 60)
    assert run.rounds[-1].rolling_success == pytest.approx(0.6)
    assert run.rounds[-1].utd == pytest.approx(2.0)
    assert {"td_error_fresh", "td_error_replayed", "parameter_norm", "critic/q_data", "policy/loss"} <= set(
        run.rounds[0].metrics
    )


def test_versions_are_checkpoints_that_serve_and_the_first_is_the_start(models: Path, tmp_path: Path) -> None:
    run = Run(models, tmp_path / "run")
    run.learner.run(2)
    versions = Versions(tmp_path / "run")

    assert versions.current().version == 1
    for name in ("policy", "critic"):
        before, first, second = (
            read_checkpoint(path).weights
            for path in (models / name, versions.folder(0) / name, versions.folder(1) / name)
        )
        assert all(np.array_equal(before[key], first[key]) for key in before)
        assert not all(np.array_equal(first[key], second[key]) for key in before)
    registry.engine(str(versions.folder(1) / "policy"), str(versions.folder(1) / "critic"))


@pytest.mark.parametrize("improve", ["both", "edit+success"])
@pytest.mark.parametrize("stop_after", [5, 8, 13])
def test_a_stopped_run_goes_on_with_the_same_numbers(
    models: Path, tmp_path: Path, stop_after: int, improve: Improve
) -> None:
    whole = Run(models, tmp_path / "whole", improve=improve)
    whole.learner.run(4)
    cut = Run(models, tmp_path / "cut", stop_after=stop_after, improve=improve)
    with pytest.raises(TrainingInterrupted, match="--resume"):
        cut.learner.run(4)

    again = Run(models, tmp_path / "cut", improve=improve)
    again.learner.resume()
    again.learner.run(4)

    assert again.learner.progress.critic_updates == whole.learner.progress.critic_updates
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(again), strict=True))
    newest = Versions(tmp_path / "whole").folder(2), Versions(tmp_path / "cut").folder(2)
    for name in ("policy", "edit") if "edit" in improve else ("policy",):
        one, two = (read_checkpoint(path / name).weights for path in newest)
        assert all(np.array_equal(one[key], two[key]) for key in one)


def test_a_frozen_store_gives_a_hundred_equal_losses_after_a_resume(models: Path, tmp_path: Path) -> None:
    def losses(run: Run) -> list[float]:
        seen: list[float] = []
        step = run.learner._critic.step

        def noted(batch: Any) -> Any:
            metrics = step(batch)
            seen.append(float(metrics["loss"]))
            return metrics

        run.learner._critic.step = noted  # type: ignore[method-assign]  # watched
        return seen

    changes: dict[str, Any] = {"utd": 32.0, "improve": "none"}
    whole = Run(models, tmp_path / "whole", **changes)
    expected = losses(whole)
    whole.learner.run(2)
    cut = Run(models, tmp_path / "cut", stop_after=28, **changes)
    with pytest.raises(TrainingInterrupted):
        cut.learner.run(2)
    again = Run(models, tmp_path / "cut", **changes)
    again.learner.resume()
    got = losses(again)
    again.learner.run(2)

    assert len(expected) == 128
    assert len(got) == 100
    assert got == expected[28:]


def test_a_finished_run_goes_on_to_more_episodes(models: Path, tmp_path: Path) -> None:
    Run(models, tmp_path / "run").learner.run(2)
    more = Run(models, tmp_path / "run")
    more.learner.resume()
    more.learner.run(4)
    assert [r.version for r in more.rounds] == [2]
    assert Versions(tmp_path / "run").current().episodes == 4


def test_the_state_of_another_version_is_refused(models: Path, tmp_path: Path) -> None:
    Run(models, tmp_path / "run").learner.run(2)
    (tree,) = (tmp_path / "run" / "training").glob("step-*/state.json")
    document = json.loads(tree.read_text())
    document["state"]["progress"]["edit_updates"] = 0
    tree.write_text(json.dumps(document))
    with pytest.raises(
        CheckpointError, match=r"another version of Steer, which counted \['edit_updates'\] differently"
    ):
        Run(models, tmp_path / "run").learner.resume()


def test_nothing_is_learnt_during_the_warm_up(models: Path, tmp_path: Path) -> None:
    run = Run(models, tmp_path / "run", warmup_episodes=2, warmup_behaviour="policy", offline_share=0.0)
    run.learner.run(4)
    assert [(r.critic_updates, r.policy_updates) for r in run.rounds] == [(0, 0), (8, 4)]
    assert [steered for _, _, steered in run.source.asked] == [False, True]


def test_of_a_round_that_goes_beyond_the_warm_up_the_rest_is_learnt_from(models: Path, tmp_path: Path) -> None:
    # All that was recorded already is one round.
    run = Run(models, tmp_path / "run", warmup_episodes=3, offline_share=0.0, round_episodes=5)
    run.learner.run(5)
    assert [(r.episodes, r.critic_updates, r.policy_updates) for r in run.rounds] == [(5, 8, 4)]
    run.learner.run(10)
    assert [r.critic_updates for r in run.rounds] == [8, 28]


def test_a_fresh_critic_learns_from_the_warm_up_before_it_steers(models: Path, tmp_path: Path) -> None:
    run = Run(models, tmp_path / "run", warmup_episodes=2, warmup_behaviour="policy", fresh_critic=True)
    run.learner.run(4)
    assert [r.critic_updates for r in run.rounds] == [8, 16]
    assert [steered for _, _, steered in run.source.asked] == [False, True]


def test_every_episode_and_update_is_shown(models: Path, tmp_path: Path) -> None:
    run = Run(models, tmp_path / "run", save_every=500)
    run.learner.run(2)
    assert [done for done in run.shown if done[0] == "episodes"] == [("episodes", n, 2) for n in range(3)]
    assert [done for done in run.shown if done[0] == "critic"] == [("critic", n, 8) for n in range(1, 9)]
    assert [done for done in run.shown if done[0] == "policy"] == [("policy", n, 4) for n in range(1, 5)]


def test_a_fresh_critic_has_its_own_members_and_weights(models: Path, tmp_path: Path) -> None:
    run = Run(models, tmp_path / "run", conservative=False, fresh_critic=True, members=4, target_subset=2)
    run.learner.run(2)
    config = json.loads((Versions(tmp_path / "run").folder(1) / "critic" / "config.json").read_text())["config"]
    assert (config["members"], config["algorithm"]) == (4, "td")
    assert config["calql"]["backup"]["subset"] == 2


def test_without_offline_data_the_share_must_be_zero(models: Path, tmp_path: Path) -> None:
    run = Run(models, tmp_path / "run", offline_share=0.0)
    assert run.learner._replay.offline is None
    with pytest.raises(ConfigError, match="statistics from offline data"):
        Run(models, tmp_path / "fresh", offline_share=0.0, fresh_critic=True)


def test_the_policy_stays_as_it_is_where_only_the_critic_learns(models: Path, tmp_path: Path) -> None:
    run = Run(models, tmp_path / "run", improve="none")
    run.learner.run(2)
    versions = Versions(tmp_path / "run")
    one, two = (read_checkpoint(versions.folder(n) / "policy").weights for n in (0, 1))
    assert all(np.array_equal(one[key], two[key]) for key in one)
    assert run.rounds[0].policy_updates == 0


def test_an_edit_actor_learns_beside_a_policy_that_stays_and_is_published(models: Path, tmp_path: Path) -> None:
    run = Run(
        models,
        tmp_path / "run",
        improve="edit",
        utd=3.0,
        edit_every=2,
        conservative=False,
        fresh_critic=True,
        members=3,
    )
    run.learner.run(4)

    versions = Versions(tmp_path / "run")
    assert run.learner.progress.critic_updates == 24
    assert {"critic/edit_gain", "critic/edit_entropy", "critic/edit_temperature"} <= set(run.rounds[-1].metrics)
    first, last = versions.folder(1), versions.folder(2)
    assert not (versions.folder(0) / "edit").exists(), "an actor that has learnt nothing is noise"
    assert versions.current().edit == read_checkpoint(last / "edit").version
    for name, stays in (("policy", True), ("edit", False)):
        one, two = (read_checkpoint(folder / name).weights for folder in (first, last))
        assert all(np.array_equal(one[key], two[key]) for key in one) == stays
    engine = registry.engine(str(last / "policy"), str(last / "critic"), f"edit:{last / 'edit'}")
    observation = engine.observation.generate(np.random.default_rng(0))
    decision = engine.decide([Request(observation, seed=1, num_samples=3)])[0]
    assert decision.origins == ("policy",) * 3 + ("edit",) * 3


def test_the_played_version_is_known_by_its_number_or_its_critic(models: Path, tmp_path: Path) -> None:
    run = Run(models, tmp_path / "run", improve="none")
    run.learner.run(4)
    progress = run.learner.progress
    # The toys' episodes all name version 0.
    assert [r.behaviour_age for r in run.rounds] == [0, 1]
    assert len(set(progress.critics)) == 3
    assert progress.version_of({"critic_version": progress.critics[1]}) == 1
    assert progress.version_of({"critic_version": "another"}) is None
    # Another run's numbers are not believed.
    assert progress.version_of({"version": 1, "critic_version": progress.critics[1]}) == 1
    assert progress.version_of({"version": 1, "critic_version": "another"}) is None
    assert progress.version_of({"version": 1, "critic_version": ""}) == 1
    assert replace(progress, critics=["a", "a", "b"]).version_of({"critic_version": "a"}) == 1


def test_diagnostics_are_of_the_data_they_name(models: Path, tmp_path: Path) -> None:
    run = Run(models, tmp_path / "run", improve="none")
    norm = np.sqrt(sum(np.square(value).sum() for value in read_checkpoint(models / "critic").weights.values()))
    seen: list[tuple[bool, int]] = []
    td_error = run.learner._critic.td_error

    def noted(batch: Any) -> float:
        # The offline episodes of the toys begin elsewhere than the online ones, whose states are in steps of 0.02.
        newest = run.learner._experience.newest
        assert newest is not None
        known = {row.tobytes() for row in newest.frames.observations["state"]}
        states = batch.arrays["state"][:, -1]
        seen.append((all(row.tobytes() in known for row in states), run.learner.progress.critic_updates))
        return td_error(batch)

    run.learner._critic.td_error = noted  # type: ignore[method-assign]  # watched
    run.learner.run(4)

    assert seen == [(True, 0), (False, 0), (True, 8), (False, 8)]
    assert run.rounds[0].metrics["parameter_norm"] == pytest.approx(norm)
    assert run.rounds[1].utd == pytest.approx(16 / 8)


def test_a_corrected_label_is_learnt_from_in_the_next_round(models: Path, tmp_path: Path) -> None:
    run = Run(models, tmp_path / "run")
    run.learner.run(2)
    assert run.learner._replay.online is not None
    assert run.learner._replay.online.frames.success.tolist() == [True, False]

    store = EpisodeStore.open(run.folder.episodes)
    store.label(store.records()[1].id, True, "key")
    run.learner.run(4)

    frames = run.learner._replay.online.frames
    assert frames.success.tolist() == [True, True, True, False]
    assert frames.rewards[frames.finals - 1].tolist() == [1, 1, 1, 0]
    assert run.rounds[-1].rolling_success == pytest.approx(0.75)


@pytest.mark.parametrize("when", ["between rounds", "before a resume"])
def test_a_later_label_that_says_otherwise_is_what_rewards_and_nothing_else(
    models: Path, tmp_path: Path, when: str
) -> None:
    run = Run(models, tmp_path / "run")
    store = EpisodeStore.create(run.folder.episodes, ROBOT, exist_ok=True)
    with store.writer() as writer:
        writer.add(replace(make_episode(0, success=False), success=None, rewards=np.full(8, 0.25, np.float32)))
        writer.add(replace(make_episode(1, success=False), rewards=np.full(8, 0.25, np.float32)))
        writer.add(make_episode(2, success=True))
    run.learner.run(3)
    store.refresh()
    unlabelled, confirmed, mistyped = store.records()
    store.label_many({unlabelled.id: False, confirmed.id: False, mistyped.id: False}, "classifier")

    if when == "before a resume":
        run = Run(models, tmp_path / "run")
        run.learner.resume()
    run.learner.run(4)

    assert run.learner._replay.online is not None
    frames = run.learner._replay.online.frames
    assert frames.labelled.tolist() == [True] * 4
    assert [frames.rewards[frames.rows([e])].sum() for e in range(3)] == [0, 2, 0]
    assert frames.terminated.tolist() == [False, False, True, False]


def test_a_segment_damaged_since_costs_its_episodes_and_not_the_run(models: Path, tmp_path: Path) -> None:
    first = Run(models, tmp_path / "run")
    first.learner.run(4)
    segment = sorted((first.folder.episodes / "segments").iterdir())[0]
    for part in (path for path in segment.rglob("*") if path.is_file() and path.stat().st_size > 100):
        part.write_bytes(part.read_bytes()[:50])

    again = Run(models, tmp_path / "run")
    again.learner.resume()
    again.learner.run(4)

    assert again.learner._replay.online is not None
    assert len(again.learner._replay.online.frames.ids) == 4
    assert [r.episodes for r in again.rounds] == [4]


def test_a_label_that_changes_in_mid_round_does_not_stop_a_run(models: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"improve": "success", "policy_utd": 5.0}
    cut = Run(models, tmp_path / "run", save_every=1, **changes)
    cut.learner._stop = lambda: cut.learner.progress.policy_updates >= 3
    with pytest.raises(TrainingInterrupted):
        cut.learner.run(2)
    store = EpisodeStore.open(cut.folder.episodes)
    store.label(store.records()[1].id, True, "key")

    again = Run(models, tmp_path / "run", **changes)
    again.learner.resume()
    again.learner.run(2)

    assert again.rounds[-1].policy_updates == 20
    assert again.rounds[-1].success == 1.0
