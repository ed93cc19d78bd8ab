"""Success classifiers: which frames teach what, what they learn, and how the threshold is chosen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from critics.reward.classifier import RewardClassifier, choose_threshold
from critics.reward.config import RewardConfig
from critics.reward.network import shifted
from critics.reward.objective import RewardObjective
from critics.reward.sampling import SuccessSampler, examples, split
from steer.checkpoints import read_checkpoint
from steer.classifier import ClassifierSpec, episode_score, load_classifier
from steer.data.frames import Frames
from steer.errors import CheckpointError, ConfigError, SpecError
from steer.observation import ObservationSpec
from steer.training.loop import LoopConfig, train
from tests.critics.reward import toys
from tests.critics.reward.toys import SMALL, STATE, STEPS

LABELS: list[bool | None] = [True, False] * 15


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Frames:
    return toys.make_frames(tmp_path_factory.mktemp("data") / "store", [*LABELS, None])


def trained(config: RewardConfig, frames: Frames) -> RewardObjective:
    objective, sampler = RewardObjective(config, frames), SuccessSampler(config, frames)
    for _ in range(config.steps):
        objective.step(sampler.sample())
    return objective


def of_episode(frames: Frames, episode: int) -> dict[str, np.ndarray]:
    rows = slice(frames.starts[episode], frames.finals[episode] + 1)
    return {key: value[rows] for key, value in frames.observations.items()}


def test_the_end_of_a_success_shows_it_and_what_is_shortly_before_shows_nothing(frames: Frames) -> None:
    config = replace(SMALL, positive_frames=2, gap_frames=3)
    found = examples(config, frames, np.array([0, 1]))  # a success, then a failure
    length = STEPS + 1
    assert found.positive.tolist() == [length - 2, length - 1]
    assert found.negative.tolist() == [*range(length - 5), *range(length, 2 * length)]
    assert found.last.tolist() == [2 * length - 2, 2 * length - 1]


def test_both_kinds_are_held_back_for_the_threshold_and_what_nobody_labelled_is_not_used(frames: Frames) -> None:
    fit, calibrate = split(SMALL, frames)
    assert sorted([*fit, *calibrate]) == list(range(30))
    assert (frames.success[calibrate].sum(), len(calibrate)) == (3, 6)


def test_batches_hold_as_much_success_as_failure_and_go_on_where_they_were(frames: Frames) -> None:
    sampler = SuccessSampler(SMALL, frames, seed=3)
    sampler.sample()
    state = sampler.state()
    batch = sampler.sample()
    assert batch.success.sum() == 16
    np.testing.assert_allclose(batch.arrays["state"][batch.success > 0.5, 0], 0.9, atol=0.02)
    again = SuccessSampler(SMALL, frames, seed=9)
    again.restore(state)
    np.testing.assert_array_equal(again.sample().arrays["state"], batch.arrays["state"])


@pytest.mark.parametrize("keys", [("state",), ("camera.front",), ("state", "camera.front")])
def test_it_learns_to_tell_success_from_state_and_from_pictures(frames: Frames, keys: tuple[str, ...]) -> None:
    classifier = trained(replace(SMALL, keys=keys, learning_rate=3e-3), frames).classifier()
    scores = np.array([episode_score(classifier, of_episode(frames, episode)) for episode in range(30)])
    assert ((scores >= classifier.spec.threshold) == frames.success[:30]).mean() > 0.9
    on_the_way = classifier.probability(of_episode(frames, 0))[: STEPS // 2]
    assert on_the_way.max() < 0.5


def test_what_is_saved_judges_as_what_was_trained(frames: Frames, tmp_path: Path) -> None:
    objective = trained(replace(SMALL, keys=()), frames)
    before = objective.classifier()
    version = objective.save(tmp_path / "reward")
    loaded = load_classifier(str(tmp_path / "reward"))
    assert (loaded.version, loaded.spec) == (version, before.spec)
    assert loaded.spec.observation.keys == ("state", "camera.front")
    shown = of_episode(frames, 0)
    np.testing.assert_allclose(loaded.probability(shown), before.probability(shown), atol=1e-6)
    assert read_checkpoint(tmp_path / "reward").kind == "reward"


def test_a_resumed_run_ends_in_the_same_weights(frames: Frames, tmp_path: Path) -> None:
    class Stopping(RewardObjective):
        def step(self, batch: object) -> object:  # type: ignore[override]  # only stops
            self.left -= 1
            if not self.left:
                raise RuntimeError
            return super().step(batch)  # type: ignore[arg-type]

    config = replace(SMALL, steps=12)
    loop = LoopConfig(12, save_every=5, log_every=5)
    train(RewardObjective(config, frames), SuccessSampler(config, frames), loop, tmp_path / "whole")
    stopping = Stopping(config, frames)
    stopping.left = 8
    with pytest.raises(RuntimeError):
        train(stopping, SuccessSampler(config, frames), loop, tmp_path / "cut")
    train(RewardObjective(config, frames), SuccessSampler(config, frames), loop, tmp_path / "cut", resume=True)
    whole, cut = (read_checkpoint(tmp_path / name).version for name in ("whole", "cut"))
    assert whole == cut


def test_the_threshold_lets_no_failure_pass_and_lies_half_way_to_the_next_success() -> None:
    scores = np.array([0.1, 0.92, 0.95, 0.97, 0.99])
    success = np.array([False, False, True, True, True])
    assert choose_threshold(scores, success, 0.0, 0.5) == pytest.approx((0.92 + 0.95) / 2)
    assert choose_threshold(scores, success, 0.5, 0.5) == pytest.approx((0.1 + 0.95) / 2)
    assert choose_threshold(scores, success, 0.5, 0.9) == 0.9
    assert choose_threshold(np.array([0.99, 0.2]), np.array([False, True]), 0.0, 0.5) > np.float32(0.99)


def test_a_false_success_that_costs_more_asks_for_more() -> None:
    assert RewardConfig().least_threshold == pytest.approx(0.9)
    with pytest.raises(ConfigError, match="false_success_cost"):
        RewardConfig(false_success_cost=0.5)


def test_an_episode_is_judged_by_its_last_frames_or_anywhere() -> None:
    probabilities = np.array([0.1, 0.9, 0.8, 0.2], np.float32)
    observation = ObservationSpec((STATE,))
    assert ClassifierSpec(observation, 0.5, 2).score(probabilities) == pytest.approx(0.5)
    assert ClassifierSpec(observation, 0.5, 2, "anywhere").score(probabilities) == pytest.approx(0.85)
    assert ClassifierSpec(observation, 0.5, 9, "anywhere").score(probabilities) == pytest.approx(0.5)
    with pytest.raises(SpecError, match="without frames"):
        ClassifierSpec(observation, 0.5).score(probabilities[:0])


def test_too_few_labels_and_frames_that_do_not_fit_are_refused(tmp_path: Path, frames: Frames) -> None:
    with pytest.raises(ConfigError, match="1 episodes are labelled as a failure"):
        RewardObjective(SMALL, toys.make_frames(tmp_path / "few", [True, True, True, False]))
    classifier = RewardObjective(SMALL, frames).classifier()
    with pytest.raises(SpecError, match="lack 'state'"):
        classifier.probability({"pose": np.zeros((1, 2), np.float32)})
    with pytest.raises(SpecError):
        classifier.probability({"state": np.zeros((1, 3), np.float32)})


def test_a_checkpoint_of_another_size_is_refused(frames: Frames, tmp_path: Path) -> None:
    RewardObjective(SMALL, frames).save(tmp_path / "reward")
    config = (tmp_path / "reward" / "config.json").read_text()
    (tmp_path / "reward" / "config.json").write_text(config.replace("16", "17"))
    with pytest.raises(CheckpointError, match="not what the manifest says"):
        RewardClassifier.load(tmp_path / "reward")


def test_shifting_keeps_the_size_and_moves_by_no_more_than_asked() -> None:
    images = torch.zeros(20, 8, 8, 3, dtype=torch.uint8)
    images[:, 4, 4] = 255
    moved = shifted(images, 2)
    assert moved.shape == images.shape
    places = np.argwhere(moved[..., 0].numpy() == 255)
    assert len(places) == 20
    assert np.abs(places[:, 1:] - 4).max() <= 2
    assert len(np.unique(places[:, 1:], axis=0)) > 3
