"""The paired evaluation as a whole: pairing, tuning on other seeds, success against K, and the same through a server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from steer.engine import Engine
from steer.errors import ConfigError, SpecError, UnavailableError
from steer.evaluation.evaluate import EvaluationSettings, evaluate, resolve_execute
from steer.evaluation.result import Evaluation
from steer.evaluation.rollout import RolloutSettings
from steer.evaluation.runner import Progress, Runner
from steer.evaluation.setup import Setup
from steer.evaluation.statistics import mcnemar_exact, paired_difference, wilson
from steer.evaluation.tuning import TuningSettings, check_disjoint, tune
from steer.server.server import running
from tests.evaluation.fakes import ENV_ID, build
from tests.evaluation.results import evaluation
from tests.fakes import FakeCritic, FakePolicy

PLAYED = RolloutSettings(num_samples=8, temperature=1.5, execute=2)


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    with Runner(build, workers=1) as started:
        yield started


def silent(name: str, total: int) -> Progress:
    return lambda done, of: None


def test_the_result_is_what_the_episodes_say(runner: Runner) -> None:
    played = evaluate(runner, EvaluationSettings(PLAYED, episodes=30, seed=40), silent, {"env_id": ENV_ID})
    result = played.result
    base = [episode.success for episode in result.per_episode["base"]]
    steered = [episode.success for episode in result.per_episode["steered"]]
    assert [episode.seed for episode in result.per_episode["base"]] == list(range(40, 70))
    assert (result.base, *result.base_interval) == wilson(sum(base), 30)
    assert (result.steered, *result.steered_interval) == wilson(sum(steered), 30)
    assert (result.difference, result.low, result.high) == paired_difference(base, steered)
    assert result.mcnemar_p == mcnemar_exact(base, steered)
    assert result.difference > 0.3, "the fake critic knows the target, so steering must help"
    assert result.settings["temperature"] == 1.5
    assert result.settings["env_id"] == ENV_ID
    assert result.versions == {"steer": version("steer-robotics"), "policy": "fake-policy-1", "critic": "fake-critic-1"}
    assert {"propose", "wait"} <= set(result.latency["base"])
    assert {"propose", "score", "wait"} <= set(result.latency["steered"])
    assert len(result.calibration) == 10


def test_pairs_share_their_initial_states(runner: Runner) -> None:
    played = evaluate(runner, EvaluationSettings(PLAYED, episodes=5), silent)
    for base, steered in zip(played.base, played.steered, strict=True):
        np.testing.assert_array_equal(base.episode.observations["state"][0], steered.episode.observations["state"][0])


def test_success_against_k_reuses_what_was_played(runner: Runner) -> None:
    stages: list[str] = []

    def stage(name: str, total: int) -> Progress:
        stages.append(name)
        return silent(name, total)

    result = evaluate(runner, EvaluationSettings(PLAYED, episodes=10, k_sweep=(1, 2, 8)), stage).result
    assert [point.samples for point in result.k_sweep] == [1, 2, 8]
    assert result.k_sweep[0].rate.success == result.base
    assert result.k_sweep[-1].rate.success == result.steered
    assert stages == ["base", "steered, K = 8", "K = 2"]


def test_tuning_chooses_on_its_own_seeds(runner: Runner) -> None:
    grid = TuningSettings(episodes=12, seed=900, samples=(2, 16), temperatures=(0.1, 1.5))
    tuning = tune(runner, PLAYED, grid)
    assert len(tuning.points) == 4
    best = max(tuning.points, key=lambda point: point.steered)
    assert (tuning.samples, tuning.temperature) == (best.samples, best.temperature)
    result = evaluate(runner, EvaluationSettings(PLAYED, episodes=4, tuning=grid), silent).result
    assert result.tuning == tuning
    assert result.settings["num_samples"] == tuning.samples
    assert result.settings["temperature"] == tuning.temperature


def test_equally_good_settings_give_the_cheapest(runner: Runner) -> None:
    # At temperature 0 all candidates are the same, so no K is better than another.
    tuning = tune(runner, PLAYED, TuningSettings(3, 900, samples=(16, 4, 8), temperatures=(0.0,)))
    assert tuning.samples == 4


@pytest.mark.parametrize(
    ("tuning", "apart"), [(range(0, 10), False), (range(5, 6), False), (range(20, 30), True), (range(3, 3), True)]
)
def test_overlapping_seed_ranges_are_refused(tuning: range, apart: bool) -> None:
    if apart:
        check_disjoint(tuning, range(0, 20))
        return
    with pytest.raises(ConfigError, match=r"overlap evaluation seeds 0\.\.19"):
        check_disjoint(tuning, range(0, 20))


def test_settings_refuse_tuning_on_the_evaluations_starts() -> None:
    with pytest.raises(ConfigError, match="overlap"):
        EvaluationSettings(PLAYED, episodes=100, seed=0, tuning=TuningSettings(episodes=10, seed=99))


def test_execute_follows_the_critic_unless_given() -> None:
    assert resolve_execute(RolloutSettings(), (2, 4)).execute == 4
    assert resolve_execute(RolloutSettings(execute=2), (2, 4)).execute == 2
    assert resolve_execute(RolloutSettings(), ()).execute == 0


def test_the_result_survives_its_file(tmp_path: Path) -> None:
    result = evaluation([True, False, False], [True, True, False])
    result.write(tmp_path / "result.json")
    assert Evaluation.read(tmp_path / "result.json") == result
    data = json.loads((tmp_path / "result.json").read_text())
    documented = {"base", "steered", "difference", "low", "high", "episodes", "mcnemar_p", "per_episode", "latency"}
    assert documented | {"settings", "versions", "k_sweep", "tuning", "verdict", "calibration"} <= set(data)
    assert data["latency"]["steered"]["wait"] == {"p50_s": 0.002, "p99_s": 0.004, "count": 40}
    assert [episode["success"] for episode in data["per_episode"]["steered"]] == [True, True, False]


def test_a_result_with_an_unknown_field_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    evaluation([True], [True]).write(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "bonus": 1}))
    with pytest.raises(SpecError, match="bonus"):
        Evaluation.read(path)


def test_through_a_server_every_episode_ends_the_same(runner: Runner) -> None:
    settings = EvaluationSettings(PLAYED, episodes=12)
    local = evaluate(runner, settings, silent)
    with (
        running(Engine(FakePolicy(), FakeCritic(prefixes=(2, 4)))) as address,
        Runner(Setup(ENV_ID, server=address), 2) as far,
    ):
        assert far.facts.policy == "fake-policy-1"
        assert far.facts.prefixes == (2, 4)
        remote = evaluate(far, settings, silent)
    for side in ("base", "steered"):
        ours, theirs = local.result.per_episode[side], remote.result.per_episode[side]
        assert [episode.success for episode in ours] == [episode.success for episode in theirs]
    np.testing.assert_array_equal(local.steered[0].episode.actions, remote.steered[0].episode.actions)


def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1"), Runner(Setup(ENV_ID, server="127.0.0.1:1"), 1):
        pass


def test_a_setup_needs_exactly_one_source_of_actions() -> None:
    with pytest.raises(ConfigError, match="either a policy"):
        Setup(ENV_ID)
    with pytest.raises(ConfigError, match="brings its own critic"):
        Setup(ENV_ID, critic="runs/critic", server="127.0.0.1:1")
