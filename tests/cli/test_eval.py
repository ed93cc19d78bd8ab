"""`steer eval` from its flags to its files, with the models of a stranger's package; and its errors."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import tyro

from steer.cli.evaluate import Eval
from steer.cli.main import main
from steer.data import EpisodeStore
from steer.engine import Engine
from steer.errors import SteerError
from steer.options import pairs
from steer.serial import to_json
from steer.server.server import running
from tests.evaluation.fakes import ENV_ID, PLAIN_ID
from tests.fakes import ROBOT, FakeCritic, FakePolicy

MODELS = ["--policy", "reach:any", "--critic", "reach:any"]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed distribution that registers the fake models; worker processes inherit the path."""
    site = tmp_path / "site"
    info = site / "reach_models-1.dist-info"
    info.mkdir(parents=True)
    (site / "reach_models.py").write_text("from tests.evaluation.fakes import CRITIC, POLICY\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: reach-models\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[steer.policies]\nreach = reach_models:POLICY\n[steer.critics]\nreach = reach_models:CRITIC\n"
    )
    monkeypatch.syspath_prepend(str(site))


def evaluate(out: Path, *words: str) -> None:
    main(["eval", "--env", ENV_ID, "--workers", "1", "--out", str(out), *words])


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["eval", *words])
    assert ended.value.code == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    return text


@pytest.mark.usefixtures("package")
def test_it_prints_the_table_and_writes_both_files_and_the_episodes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, store = tmp_path / "out", tmp_path / "store"
    evaluate(
        out, *MODELS, "--episodes", "6", "--seed", "50", "--temperature", "1.5", "--videos", "1", "--record", str(store)
    )
    result = json.loads((out / "result.json").read_text())
    assert result["episodes"] == 6
    assert result["settings"]["policy"] == "reach:any"
    page = (out / "report.html").read_text()
    assert "data:video/mp4" in page
    printed = capsys.readouterr().out
    assert "paired difference" in printed
    assert str(out / "report.html") in printed
    records = EpisodeStore.open(store).records()
    assert [record.info["seed"] for record in records] == [*range(50, 56)] * 2
    assert [record.source for record in records] == ["policy"] * 6 + ["steered"] * 6
    expected = [episode["success"] for side in ("base", "steered") for episode in result["per_episode"][side]]
    assert [record.success for record in records] == expected


@pytest.mark.usefixtures("package")
def test_an_environment_that_says_nothing_of_itself(tmp_path: Path) -> None:
    """A plain vector observation, mapped by name, with a robot spec from a file; it has no pictures, hence no videos."""
    spec = tmp_path / "robot.json"
    spec.write_text(json.dumps(to_json(ROBOT)))
    out = tmp_path / "out"
    evaluate(out, *MODELS, "--env", PLAIN_ID, "--map", "state=", "--robot-spec", str(spec), "--episodes", "3")
    assert json.loads((out / "result.json").read_text())["episodes"] == 3
    assert "<video" not in (out / "report.html").read_text()


def test_through_a_server(tmp_path: Path) -> None:
    with running(Engine(FakePolicy(), FakeCritic(prefixes=(2, 4))), may_steer=False) as address:
        evaluate(tmp_path, "--server", address, "--episodes", "3", "--videos", "0")
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["settings"]["server"] == address
    assert result["verdict"] == {"may_steer": False, "reasons": []}
    assert "Should not steer" in (tmp_path / "report.html").read_text()


@pytest.mark.usefixtures("package")
def test_a_robot_spec_that_does_not_fit_names_every_difference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = refused(capsys, *MODELS, "--env", PLAIN_ID, "--workers", "1", "--out", str(tmp_path))
    assert "does not fit the models" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--policy", "x:y", "--env", "nobody/Knows-v3"], "nobody/Knows"),
        (["--policy", "x:y", "--env", ENV_ID, "--env-option", "colour=red"], "colour"),
        (["--policy", "x:y", "--env", ENV_ID, "--map", "state=position"], "'position'"),
        (["--policy", "nothing:here", "--env", ENV_ID], "unknown kind 'nothing'"),
        (["--server", "127.0.0.1:1", "--env", ENV_ID], "127.0.0.1:1"),
    ],
)
def test_what_cannot_be_built_is_named(words: list[str], said: str) -> None:
    setup = tyro.cli(Eval, args=words).setup()
    with pytest.raises(SteerError, match=re.escape(said)):
        setup()


def test_an_error_of_a_worker_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = refused(capsys, "--policy", "x:y", "--env", "nobody/Knows-v3", "--workers", "1", "--out", str(tmp_path))
    assert "nobody/Knows" in text
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--server", "127.0.0.1:1"], "either a policy"),
        (["--map", "state"], "expected KEY=VALUE"),
        (["--map", "state=a", "--map", "state=b"], "twice"),
        (["--robot-spec", "/nowhere/robot.json"], "/nowhere/robot.json"),
        (["--tune-episodes", "5", "--tune-seed", "100000"], "overlap"),
        (["--episodes", "0"], "at least 1"),
        (["--samples", "0"], "at least 1"),
        (["--k-sweep", "0", "4"], "every K"),
        (["--workers", "-2"], "-2 workers"),
    ],
)
def test_flags_that_cannot_be_meant(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(capsys, "--policy", "x:y", "--out", str(tmp_path), *words)


def test_only_the_first_equals_sign_separates() -> None:
    assert pairs(["a=b=c", "d="], "--map") == {"a": "b=c", "d": ""}
