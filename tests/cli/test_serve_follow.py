"""`steer serve --follow RUN` as a process: versions change under real requests, and what is broken or worse is not served."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from steer.cli.main import main
from steer.client.steering_client import SteeringClient
from steer.data.episode import Episode
from steer.data.store import EpisodeStore
from steer.decision import Decision, Request
from steer.observation import Observation
from tests.fakes import ROBOT
from tests.processes import ROOT, WAIT_S, Bench, Command
from tests.server.leveled import POLICY_SPEC, LevelRun, level, make_plugin

REQUESTS, SWAPS, ROBOTS, EPISODE = 1000, 20, 4, 5


@pytest.fixture(scope="session")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_plugin(tmp_path_factory.mktemp("plugin"))


@pytest.fixture
def run(tmp_path: Path) -> LevelRun:
    made = LevelRun(tmp_path / "run")
    made.publish(0)
    return made


def follow(bench: Bench, run: LevelRun, *words: str, **environment: str) -> tuple[Command, str]:
    arguments = ("serve", "--follow", str(run.folder), "--address", "127.0.0.1:0", "--poll-s", "0.02", *words)
    command = bench.steer(*arguments, **environment)
    return command, command.wait_for(r"serving on (\S+),").group(1)


@dataclass(frozen=True)
class Answer:
    """What a robot got: the number of the version that says it decided, and the action."""

    episode: int
    version: int
    critic: int
    action: float


class Robot:
    """Asks again and again, `EPISODE` requests per episode."""

    def __init__(self, address: str, run: LevelRun) -> None:
        self._client, self._run = SteeringClient(address, ROBOT, timeout_s=WAIT_S), run
        self.answers: list[Answer] = []

    def ask(self, episode: int | None = None) -> Answer:
        """The answer to the next request, or to one of this episode."""
        count = len(self.answers)
        self._client.locate(count // EPISODE if episode is None else episode, count)
        observation = Observation({"state": np.zeros((1, 3), np.float32)}, np.ones(1, np.bool_))
        decision: Decision = self._client.infer(Request(observation, seed=count, num_samples=2))
        numbers = self._run.numbers[decision.policy_version], self._run.critics[decision.critic_version]
        answer = Answer(count // EPISODE, *numbers, round(float(decision.chunk.mean()), 4))
        self.answers.append(answer)
        return answer

    def close(self) -> None:
        self._client.close()


@pytest.fixture
def robot_of(run: LevelRun) -> Iterator[Callable[[str], Robot]]:
    made: list[Robot] = []

    def make(address: str) -> Robot:
        made.append(Robot(address, run))
        return made[-1]

    yield make
    for robot in made:
        robot.close()


def test_a_thousand_requests_across_twenty_swaps(bench: Bench, run: LevelRun, robot_of: Callable[[str], Robot]) -> None:
    server, address = follow(bench, run)
    robots = [robot_of(address) for _ in range(ROBOTS)]
    news, newest, enough = threading.Condition(), [0], threading.Event()
    errors: list[BaseException] = []

    def work(robot: Robot) -> None:
        try:
            while not enough.is_set():
                answer = robot.ask()
                with news:
                    newest[0] = max(newest[0], answer.version)
                    news.notify_all()
        except BaseException as error:  # noqa: BLE001 - raised by the test's own thread
            with news:
                errors.append(error)
                news.notify_all()

    threads = [threading.Thread(target=work, args=(robot,)) for robot in robots]
    for thread in threads:
        thread.start()
    try:
        with news:
            for number in range(1, SWAPS + 1):
                run.publish(number)
                assert news.wait_for(lambda n=number: errors or newest[0] == n, WAIT_S)  # type: ignore[misc]
                assert not errors
            assert news.wait_for(lambda: errors or sum(len(r.answers) for r in robots) >= REQUESTS, WAIT_S)
    finally:
        enough.set()
        for thread in threads:
            thread.join()
    server.signal(signal.SIGINT)
    code, output = server.end()

    assert not errors
    assert code == 0, output
    answers = [answer for robot in robots for answer in robot.answers]
    resident = [int(n) for n in re.findall(r"(\d+) critics in memory", output)]
    print(f"{len(answers)} requests, {len({a.version for a in answers})} versions, {max(resident)} in memory at most")
    assert len(answers) >= REQUESTS
    assert {answer.version for answer in answers} == set(range(SWAPS + 1))
    for answer in answers:
        assert (answer.critic, answer.action) == (answer.version, level(answer.version))
    for robot in robots:
        versions = [answer.version for answer in robot.answers]
        assert versions == sorted(versions)
        episodes = {(answer.episode, answer.version) for answer in robot.answers}
        assert len(episodes) == robot.answers[-1].episode + 1, "a version changed in mid-episode"
    assert len(resident) == SWAPS + 1
    assert max(resident) == 2


def test_while_a_version_loads_the_one_before_answers(
    bench: Bench, run: LevelRun, robot_of: Callable[[str], Robot], tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    server, address = follow(bench, run, LEVEL_GATE=str(gate))
    robot = robot_of(address)
    gate.touch()
    run.publish(1)
    server.wait_for("loading")
    assert [robot.ask(episode).version for episode in (0, 1, 2)] == [0, 0, 0]
    gate.unlink()
    server.wait_for("serving another version.*version=1")
    assert [robot.ask(episode).version for episode in (2, 3)] == [0, 1]


def test_a_third_version_waits_for_the_sessions_on_the_first(
    bench: Bench, run: LevelRun, robot_of: Callable[[str], Robot]
) -> None:
    server, address = follow(bench, run)
    slow, fast = robot_of(address), robot_of(address)
    assert slow.ask(0).version == 0
    run.publish(1)
    server.wait_for("serving another version.*version=1")
    run.publish(2)
    server.wait_for("a version waits: two are in memory.*older=0.*sessions=1.*version=2")
    assert (slow.ask(0).version, fast.ask(0).version) == (0, 1)
    assert slow.ask(1).version == 1
    server.wait_for("serving another version.*version=2")
    assert (fast.ask(0).version, fast.ask(1).version) == (1, 2)


def test_a_session_moves_in_mid_episode_when_it_was_pinned_for_long(
    bench: Bench, run: LevelRun, robot_of: Callable[[str], Robot]
) -> None:
    server, address = follow(bench, run, "--max-pin-s", "0.1")
    robot = robot_of(address)
    assert robot.ask(0).version == 0
    run.publish(1)
    server.wait_for("serving another version.*version=1")
    run.publish(2)
    server.wait_for("serving another version.*version=2")
    assert robot.ask(0).version == 2


def _poison(path: Path) -> None:
    """Weights that are not finite, in a checkpoint whose hashes are right."""
    from tests.server import leveled

    leveled.save_model(path, float("nan"), POLICY_SPEC)


def _flip(path: Path) -> None:
    weights = path / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)


def _truncate(path: Path) -> None:
    weights = path / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


OTHER_ROBOT = replace(POLICY_SPEC, action=replace(POLICY_SPEC.action, rate_hz=10.0))
OTHER_HORIZON = replace(POLICY_SPEC, horizon=8)
OTHER_WINDOW = replace(POLICY_SPEC, observation=replace(POLICY_SPEC.observation, window=2))
BROKEN = {
    "NaN weights": ({"spoil_policy": _poison}, "weight ballast is not finite"),
    "a changed byte": ({"spoil_policy": _flip}, "is not what the manifest says"),
    "a truncated file": ({"spoil_critic": _truncate}, "is not what the manifest says"),
    "no weights": (
        {"spoil_policy": lambda path: (path / "weights.safetensors").unlink()},
        "weights.safetensors is missing",
    ),
    "no manifest": ({"spoil_critic": lambda path: (path / "manifest.json").unlink()}, "manifest.json is missing"),
    "no critic": ({"spoil_critic": shutil.rmtree}, "has no critic"),
    "an unknown kind": (
        {"spoil_policy": lambda path: (path / "config.json").write_text('{"kind": "?"}')},
        "is not what the manifest says",
    ),
    "another model": (
        {"spoil_policy": lambda path: shutil.copytree(path.parents[2].with_name("run-base"), path, dirs_exist_ok=True)},
        "but the run published",
    ),
    "another robot": ({"policy_spec": OTHER_ROBOT}, "rate_hz"),
    "another horizon": ({"policy_spec": OTHER_HORIZON}, "horizons 8 and 4"),
    "another window": ({"policy_spec": OTHER_WINDOW}, "its spec differs in .'observation'."),
    "scores that are not finite": ({"critic_value": -0.05}, "scores are not finite"),
}


def test_every_kind_of_broken_folder_is_refused_once_and_the_old_version_serves_on(
    bench: Bench, run: LevelRun, robot_of: Callable[[str], Robot]
) -> None:
    server, address = follow(bench, run)
    robot = robot_of(address)
    for number, (what, (changes, reason)) in enumerate(BROKEN.items(), start=1):
        run.publish(number, **changes)  # type: ignore[arg-type]
        server.wait_for(f"version refused, serving on.*{reason}.* serving=0 version={number}$")
        answer = robot.ask(episode=number)
        assert (answer.version, answer.action) == (0, level(0)), what
    (run.folder / "current.json").write_text("{")
    server.wait_for("cannot follow the run, serving on.*resume the learner")
    assert robot.ask(episode=98).version == 0
    Recorder(run)
    for number in (50, 51):
        run.publish(number)
        server.wait_for(f"serving another version.*version={number}")
        assert robot.ask(episode=100 + number).version == number
    server.signal(signal.SIGINT)
    _, output = server.end()
    assert output.count("version refused") == len(BROKEN)


DIES = """
import os, signal, sys
from pathlib import Path
from tests.server.leveled import LevelRun

LevelRun(Path(sys.argv[1])).publish(1, spoil_critic=lambda path: os.kill(os.getpid(), signal.SIGKILL))
"""


def test_a_publisher_that_is_killed_in_the_middle_changes_nothing(
    bench: Bench, run: LevelRun, robot_of: Callable[[str], Robot]
) -> None:
    server, address = follow(bench, run)
    robot = robot_of(address)
    killed = subprocess.run([sys.executable, "-c", DIES, str(run.folder)], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert robot.ask(episode=1).version == 0
    run.publish(1)
    server.wait_for("serving another version.*version=1")
    assert robot.ask(episode=2).version == 1


class Recorder:
    """Writes episodes as a robot's recorder does, each a segment of its own."""

    def __init__(self, run: LevelRun) -> None:
        self._store = EpisodeStore.create(run.folder / "episodes", ROBOT)

    def record(self, answer: Decision, *successes: int) -> None:
        info = {"policy_version": answer.policy_version, "critic_version": answer.critic_version}
        with self._store.writer(episodes_per_segment=1) as writer:
            for success in successes:
                observations = {"state": np.zeros((2, 3), np.float32)}
                step, earned = np.zeros((1, 3), np.float32), np.zeros(1, np.float32)
                writer.add(Episode(observations, step, earned, True, False, bool(success), "key", info=info))


def decide(address: str) -> Decision:
    client = SteeringClient(address, ROBOT, timeout_s=WAIT_S)
    observation = Observation({"state": np.zeros((1, 3), np.float32)}, np.ones(1, np.bool_))
    decision = client.infer(Request(observation, num_samples=2))
    client.close()
    return decision


def test_a_version_that_does_worse_is_rolled_back_and_not_served_again(bench: Bench, run: LevelRun) -> None:
    server, address = follow(bench, run)
    recorder = Recorder(run)
    recorder.record(decide(address), *[1, 1, 1, 1, 0] * 10)
    run.publish(1)
    server.wait_for("serving another version.*version=1")
    worse = decide(address)
    assert run.numbers[worse.policy_version] == 1
    recorder.record(worse, 0, 0, 1, 0, 0)

    said = server.wait_for(
        "version rolled back.*version 1 succeeded in 1 of 5 episodes, those before it in 40 of the last 50"
    )
    server.wait_for("serving another version.*version=0")

    assert run.numbers[decide(address).policy_version] == 0, said
    refused = json.loads((run.folder / "refused.json").read_text())
    assert list(refused) == ["1"]
    assert "succeeded in 1 of 5" in refused["1"]["why"]
    again, other = follow(bench, run)
    assert f"what came of versions is read in {run.folder}/episodes\n" in "".join(again.lines)
    assert run.numbers[decide(other).policy_version] == 0
    run.publish(2)
    again.wait_for("serving another version.*version=2")
    assert run.numbers[decide(other).policy_version] == 2


def test_a_person_may_refuse_a_version_and_the_guard_may_stay_at_home(bench: Bench, run: LevelRun) -> None:
    run.publish(1)
    server, address = follow(bench, run, "--no-guard")
    recorder = Recorder(run)
    played = decide(address)
    recorder.record(replace(played, policy_version=""), 1)
    recorder.record(played, *[0] * 30)
    (run.folder / "refused.json").write_text('{"1": {"why": "drops the cube"}}')
    server.wait_for("serving another version.*version=0")
    server.signal(signal.SIGINT)
    assert "rolled back" not in server.end()[1]


def test_a_run_without_a_version_is_waited_for(bench: Bench, tmp_path: Path) -> None:
    run = LevelRun(tmp_path / "run")
    server = bench.steer("serve", "--follow", str(run.folder), "--address", "127.0.0.1:0")
    server.wait_for(f"is read in {run.folder}/episodes, where there is no store yet")
    server.wait_for("has no version yet: waiting for steer finetune to publish its first, Ctrl-C stops")
    run.publish(0)
    server.wait_for("version 0 of")
    server.wait_for("serving on")


def test_a_wait_for_a_version_can_be_ended(bench: Bench, tmp_path: Path) -> None:
    server = bench.steer("serve", "--follow", str(LevelRun(tmp_path / "run").folder))
    server.wait_for("has no version yet")
    server.signal(signal.SIGTERM)
    code, output = server.end()
    assert code == 130
    assert "Traceback" not in output


def test_a_broken_newest_version_does_not_keep_a_server_from_starting(bench: Bench, run: LevelRun) -> None:
    run.publish(1, spoil_policy=_poison)
    server, address = follow(bench, run)
    assert run.numbers[decide(address).policy_version] == 0
    server.signal(signal.SIGINT)
    assert "version refused, trying the one before it" in server.end()[1]


def test_wrong_arguments_are_explained(
    run: LevelRun, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "empty").mkdir()
    sole = LevelRun(tmp_path / "sole")
    sole.publish(0, spoil_policy=_flip)
    for words, message in [
        (
            ("--follow", str(tmp_path / "empty")),
            "no run.json here: give the folder of a `steer finetune` run",
        ),
        (("--follow", str(run.folder), "--policy", "x:", "--allow-unready"), "leave out --policy, --allow-unready"),
        (("--policy", "level:x", "--outcomes", "y"), "--outcomes: only for the versions of a run, give --follow"),
        (
            ("--policy", "level:x", "--no-guard", "--max-pin-s", "9", "--poll-s", "2"),
            "--no-guard, --max-pin-s, --poll-s: only for the versions of a run, give --follow",
        ),
        (
            ("--policy", "level:x", "--openpi-execute", "4", "--openpi-samples", "2", "--openpi-map", "a=b"),
            "--openpi-execute, --openpi-samples, --openpi-map: only for openpi's clients, give --openpi-port",
        ),
        (("--follow", str(sole.folder)), "is not what the manifest says"),
    ]:
        with pytest.raises(SystemExit) as refused:
            main(["serve", *words])
        assert refused.value.code == 2
        assert message in capsys.readouterr().err
