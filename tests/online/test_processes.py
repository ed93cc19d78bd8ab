"""Real processes: the whole command, and actors and learners that are killed in the middle of their work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from steer import registry
from steer.checkpoints import read_checkpoint
from steer.cli.main import main
from steer.data.frames import load_frames
from steer.data.store import EpisodeStore
from steer.online.actor import Cast, Collector
from steer.online.progress import read_rounds
from steer.online.publish import Version, Versions
from steer.online.sources import Background
from tests.evaluation.fakes import ENV_ID
from tests.fakes import ROBOT
from tests.online.toys import SCENE, make_episode

WAIT_S = 300.0


def words(models: Path, out: Path, *more: str) -> list[str]:
    given = ("--policy", str(models / "policy"), "--critic", str(models / "critic"))
    small = ("--base-samples", "2", "--student-samples", "2", "--policy-batch-size", "16", "--batch-size", "16")
    return [
        *("finetune", *given, "--offline", str(models / "episodes"), "--out", str(out), "--env", ENV_ID),
        *("--round-episodes", "2", *small, *more),
    ]


def test_the_command_improves_from_rounds_and_says_where_it_is(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(words(models, tmp_path / "run", "--episodes", "4", "--improve", "both"))

    told = capsys.readouterr()
    assert "4 episodes, version 2" in told.out
    assert told.err.count("robot min") == 2
    lines = read_rounds(tmp_path / "run" / "rounds.jsonl")
    assert [line["episodes"] for line in lines] == [2, 4]
    assert any((tmp_path / "run" / "logs").iterdir())
    store = EpisodeStore.open(tmp_path / "run" / "episodes")
    assert [record.info["seed"] for record in store.records()] == [200_000, 200_001, 200_002, 200_003]
    assert [record.info["version"] for record in store.records()] == [0, 0, 1, 1]


@pytest.fixture
def played_on(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many episodes were asked for, each time from actors that play on."""
    asked: list[int] = []

    class Noted(Background):
        def gather(self, until: int, version: int, steered: bool, stop: Callable[[], bool]) -> None:
            asked.append(until)
            super().gather(until, version, steered, stop)

    monkeypatch.setattr("steer.cli.finetune.Background", Noted)
    return asked


def test_actors_play_on_while_the_learner_learns(models: Path, tmp_path: Path, played_on: list[int]) -> None:
    main(words(models, tmp_path / "run", "--episodes", "4", "--play-on"))
    assert played_on[0] == 2
    assert len(EpisodeStore.open(tmp_path / "run" / "episodes")) == 4
    assert Versions(tmp_path / "run").current().episodes == 4


def test_two_actors_play_on_in_their_own_processes(models: Path, tmp_path: Path, played_on: list[int]) -> None:
    main(words(models, tmp_path / "run", "--episodes", "6", "--play-on", "--actors", "2", "--improve", "edit"))
    assert played_on[0] == 2
    records = EpisodeStore.open(tmp_path / "run" / "episodes").records()
    assert {record.info["seed"] for record in records} == set(range(200_000, 200_006))
    rounds = read_rounds(tmp_path / "run" / "rounds.jsonl")
    assert rounds[-1]["episodes"] == 6
    for line in rounds:
        assert 0 <= line["behaviour_age"] < line["version"]  # type: ignore[operator]  # numbers
    read_checkpoint(Versions(tmp_path / "run").folder(len(rounds)) / "edit")


def test_without_actors_it_learns_from_what_others_record(models: Path, tmp_path: Path) -> None:
    run, online = tmp_path / "run", tmp_path / "recorded"
    store = EpisodeStore.create(online, ROBOT)
    arguments = words(models, run, "--episodes", "4", "--actors", "0", "--online", str(online))
    learner = subprocess.Popen([sys.executable, "-m", "steer.cli.main", *arguments], stderr=subprocess.PIPE, text=True)
    try:
        for version, first in ((0, 0), (1, 2)):
            _wait_for(lambda wanted=version: (run / "versions" / f"{wanted:06d}").exists(), learner)
            with store.writer(episodes_per_segment=1) as writer:
                for seed in (first, first + 1):
                    writer.add(make_episode(seed, success=seed % 2 == 0))
        _, told = learner.communicate(timeout=WAIT_S)
    finally:
        learner.kill()
    assert learner.returncode == 0, told
    assert Versions(run).current().episodes == 4
    assert not (run / "episodes").exists()


def test_two_learning_processes_come_to_the_weights_of_one(models: Path, tmp_path: Path) -> None:
    options = ("--episodes", "2", "--improve", "edit+success")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    ended = subprocess.run(
        [*launch, "-m", "steer.cli.main", *words(models, tmp_path / "two", *options)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("2 episodes, version 1") == 1
    main(words(models, tmp_path / "one", *options))

    for name in ("policy", "critic", "edit"):
        one, two = (read_checkpoint(Versions(tmp_path / run).folder(1) / name).weights for run in ("one", "two"))
        assert one.keys() == two.keys()
        for key in one:
            np.testing.assert_allclose(two[key], one[key], atol=1e-5)
    # The update counts and the losses that were told agree, too.
    (first,), (second,) = (read_rounds(tmp_path / run / "rounds.jsonl") for run in ("one", "two"))
    assert first["critic_updates"] == second["critic_updates"]


def test_the_command_improves_a_token_policy(models: Path, tmp_path: Path) -> None:
    trainable = registry.family(registry.POLICIES, "openvla").trainable
    assert trainable is not None
    config = trainable.config(hidden=16, layers=1, heads=2, expansion=16, bins=16)
    frames = load_frames(EpisodeStore.open(models / "episodes"))
    trainable.objective(config, frames, seed=0).save(tmp_path / "tokens")
    given = words(models, tmp_path / "run", "--episodes", "2", "--improve", "pa-rl")
    given[given.index("--policy") + 1] = str(tmp_path / "tokens")

    main(given)

    start, last = (read_checkpoint(p) for p in (tmp_path / "tokens", Versions(tmp_path / "run").folder(1) / "policy"))
    assert (last.kind, last.spec) == ("openvla", start.spec)
    assert not all(np.array_equal(last.weights[key], start.weights[key]) for key in start.weights)


def test_a_killed_actor_costs_nothing_that_was_published(models: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    Versions(run).publish(
        Version(0),
        lambda path: _copy(models / "policy", path),
        lambda path: _copy(models / "critic", path),
    )
    cast = Cast(run, str(models / "policy"), 2, 2, 1.0, 4)
    collector = Collector(SCENE, cast, tmp_path / "s", ROBOT, 100, 1)
    seen: list[int] = []

    def kill_once() -> bool:
        seen.append(1)
        if len(seen) == 1:
            os.kill(collector.pids[0], signal.SIGKILL)
        return False

    collector.gather(4, 0, True, kill_once)
    collector.close()

    store = EpisodeStore.open(tmp_path / "s")
    assert [record.info["seed"] for record in store.records()] == [100, 101, 102, 103]


def test_a_killed_learner_goes_on_and_a_second_one_is_refused(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    arguments = words(models, run, "--save-every", "1", "--utd", "20")
    # More than it can play: it lives until it is killed.
    learner = subprocess.Popen(
        [sys.executable, "-m", "steer.cli.main", *arguments, "--episodes", "100000"], stderr=subprocess.PIPE, text=True
    )
    try:
        _wait_for(lambda: (run / "versions" / "000001").exists(), learner)
        learner.send_signal(signal.SIGSTOP)
        with pytest.raises(SystemExit) as refused:
            main([*arguments, "--resume"])
    finally:
        learner.kill()
        learner.communicate()
    assert refused.value.code == 2
    assert "another learner is at work" in capsys.readouterr().err
    published = [record.id for record in EpisodeStore.open(run / "episodes").records()]

    main([*arguments, "--resume", "--episodes", str(len(published) + 2)])

    records = EpisodeStore.open(run / "episodes").records()
    assert [record.id for record in records][: len(published)] == published
    assert len(records) == len(published) + 2
    newest = Versions(run).current()
    assert newest.critic_updates > 0
    read_checkpoint(Versions(run).folder(newest.version) / "critic")
    lines = read_rounds(run / "rounds.jsonl")
    assert [line["version"] for line in lines] == list(range(1, newest.version + 1))
    assert lines[-1]["episodes"] == len(records)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--episodes", "0"), "--episodes is 0"),
        (("--resume",), "nothing to resume"),
        (("--actors", "0", "--play-on"), "--play-on is for actors"),
        (("--env-option", "x"), "expected KEY=VALUE"),
        (("--device", "cuda"), "no CUDA device is here"),
        (("--device", "abacus"), "no such device"),
        (("--device", "meta"), "give cpu, cuda, cuda:1 or auto"),
        (("--offline-share", "2"), "offline_share is 2.0"),
    ],
)
def test_wrong_arguments_are_explained(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], message: str
) -> None:
    with pytest.raises(SystemExit) as refused:
        main(words(models, tmp_path / "run", *more))
    assert refused.value.code == 2
    assert message in capsys.readouterr().err


def test_a_preset_sets_the_flags_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["finetune", "--preset", "wsrl", "--help"])
    help_text = " ".join(capsys.readouterr().out.split())
    assert "default: 75" in help_text


def _copy(source: Path, target: Path) -> str:
    import shutil

    shutil.copytree(source, target)
    return str(json.loads((source / "config.json").read_text())["kind"])


def _wait_for(condition, process: subprocess.Popen[str]) -> None:  # type: ignore[no-untyped-def]  # Callable[[], bool]
    """Until it holds; fails when the process ends first."""
    end = time.monotonic() + WAIT_S
    while not condition():
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < end
        time.sleep(0.02)
