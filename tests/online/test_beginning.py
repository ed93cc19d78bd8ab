"""What is found out before a run begins: until then its folder stays as it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from steer.cli.finetune import FineTune
from steer.data.store import EpisodeStore
from steer.errors import ConfigError, SteerError
from steer.online.publish import Versions
from steer.robot import RobotSpec, write_robot
from tests.evaluation.fakes import ENV_ID
from tests.fakes import ROBOT
from tests.online.toys import SMALL, make_episode


@pytest.fixture
def command(models: Path, tmp_path: Path) -> FineTune:
    """Two short rounds."""
    return FineTune(
        policy=str(models / "policy"),
        critic=str(models / "critic"),
        offline=models / "episodes",
        out=tmp_path / "run",
        env=ENV_ID,
        config=SMALL,
        episodes=2,
    )


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A store with two episodes of another run."""
    store = EpisodeStore.create(tmp_path / "recorded", ROBOT)
    with store.writer() as writer:
        for seed in (0, 1):
            writer.add(make_episode(seed, success=seed == 0))
    return store.path


def earlier_run(out: Path) -> dict[str, str]:
    """Leave the files of a run there; what they hold."""
    (out / "training").mkdir(parents=True)
    (out / "run.json").write_text(json.dumps({"policy": "p"}))
    (out / "rounds.jsonl").write_text('{"version": 1}\n')
    return contents(out)


def contents(out: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in out.glob("*") if path.is_file() and path.name != "learner.lock"}


WRONG: dict[str, Callable[[FineTune], FineTune]] = {
    "a policy that is not there": lambda c: replace(c, policy="typo"),
    "a critic that is not there": lambda c: replace(c, critic="typo"),
    "an offline store that is not there": lambda c: replace(c, offline=c.out / "typo"),
    "no offline store": lambda c: replace(c, offline=None),
    "an environment that is not there": lambda c: replace(c, env="typo/Reach-v0"),
    "an option without a value": lambda c: replace(c, env_option=("x",)),
    "an online store with other episodes": lambda c: replace(c, online=c.out.parent / "recorded"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_leaves_an_earlier_run_alone(command: FineTune, recorded: Path, wrong: str) -> None:
    before = earlier_run(command.out)
    with pytest.raises(SteerError):
        WRONG[wrong](replace(command, overwrite=True)).run()
    assert contents(command.out) == before


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_claims_nothing(command: FineTune, recorded: Path, wrong: str) -> None:
    with pytest.raises(SteerError):
        WRONG[wrong](command).run()
    assert [path.name for path in command.out.iterdir()] == ["learner.lock"]


def test_models_of_another_robot_claim_nothing(command: FineTune, tmp_path: Path) -> None:
    other = EpisodeStore.create(tmp_path / "other", slower(ROBOT))
    with pytest.raises(SteerError, match="does not fit the models"):
        replace(command, offline=other.path).run()
    assert not (command.out / "run.json").exists()


def test_a_folder_of_something_else_is_not_cleared(command: FineTune) -> None:
    earlier_run(command.out)
    (command.out / "thesis.tex").write_text("")
    before = contents(command.out)
    with pytest.raises(ConfigError, match=r"holds something else \(thesis.tex\)"):
        replace(command, overwrite=True).run()
    assert contents(command.out) == before


def test_actors_want_a_store_without_episodes(command: FineTune, recorded: Path) -> None:
    with pytest.raises(ConfigError, match="holds 2 episodes that this run did not play: give another --online"):
        replace(command, online=recorded).run()
    recorded.rename(command.out / "episodes")
    with pytest.raises(ConfigError, match="holds 2 episodes that this run did not play: --overwrite them"):
        command.run()


def test_without_actors_what_is_recorded_already_is_learnt_from(
    command: FineTune, recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replace(command, online=recorded, actors=0).run()
    assert Versions(command.out).current().episodes == 2
    assert "holds episodes already" in "".join(capsys.readouterr())


def test_without_actors_the_store_or_a_sidecar_says_which_robot_it_is(command: FineTune, recorded: Path) -> None:
    alone = replace(command, offline=None, actors=0, config=replace(SMALL, offline_share=0.0), env="nowhere/No-v0")
    with pytest.raises(ConfigError, match="nothing says which robot"):
        alone.run()
    replace(alone, online=recorded).run()
    assert Versions(command.out).current().episodes == 2

    sidecar = command.out.parent / "robot.json"
    write_robot(sidecar, slower(ROBOT))
    with pytest.raises(SteerError, match="does not fit the models"):
        replace(alone, robot_spec=sidecar, out=command.out.parent / "second").run()


def test_flags_that_make_no_sense_are_refused(command: FineTune) -> None:
    with pytest.raises(ConfigError, match="--seed is -1"):
        replace(command, seed=-1).run()
    with pytest.raises(ConfigError, match="lies in --out"):
        replace(command, online=command.out / "more").run()
    assert not command.out.exists()


@pytest.mark.parametrize("inside", [".", "run"])
def test_a_file_cannot_be_the_folder_of_a_run(command: FineTune, tmp_path: Path, inside: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="choose one that can be written"):
        replace(command, out=tmp_path / "file" / inside).run()


def slower(robot: RobotSpec) -> RobotSpec:
    """Its twin with another control rate."""
    return replace(robot, action=replace(robot.action, rate_hz=robot.action.rate_hz / 2))
