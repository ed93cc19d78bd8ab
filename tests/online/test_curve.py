"""The learning curve: which versions are measured, what is played once, and what is said of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from steer.cli.main import main
from steer.evaluation.notes import points
from steer.evaluation.result import Rate
from steer.evaluation.statistics import Estimate
from steer.online.curve import LearningCurve, Moment, Point, moments
from steer.online.curve_report import headline, notes, write_curve_report
from steer.online.releases import RunReleases
from tests.online.test_processes import words

STARTED = {"env": "task", "env_option": [], "map": [], "first_seed": 200_000, "config": {}}


def write_rounds(run: Path, *episodes: int) -> None:
    run.mkdir(exist_ok=True)
    lines = [
        {"version": i + 1, "episodes": n, "robot_minutes": n / 10, "seconds": 60.0 * n} for i, n in enumerate(episodes)
    ]
    (run / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_first_version_with_enough_episodes_stands_for_their_number_and_the_last_ends(tmp_path: Path) -> None:
    write_rounds(tmp_path, 25, 50, 75, 100)
    assert [moment.version for moment in moments(tmp_path, (0, 60, 75))] == [0, 3, 4]
    assert [moment.version for moment in moments(tmp_path, (0, 300), robot_minutes=4.0)] == [0, 2]
    assert [moment.version for moment in moments(tmp_path, (0, 75), robot_minutes=4.0)] == [0, 2]
    assert moments(tmp_path, (0,))[-1] == Moment(4, 100, 10.0, 100.0)


def test_more_robot_time_than_the_run_had_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_rounds(tmp_path, 25)
    assert main_error(capsys, "curve", str(tmp_path), "--robot-minutes", "9").count("run.json") == 1
    (tmp_path / "run.json").write_text(json.dumps(STARTED))
    assert re.search(
        r"2\.5 minutes of robot time, 9 are asked", main_error(capsys, "curve", str(tmp_path), "--robot-minutes", "9")
    )


@pytest.mark.parametrize(
    ("seed", "meets"), [("199600", False), ("199601", True), ("200000", True), ("200099", True), ("200100", False)]
)
def test_starts_that_the_run_learnt_from_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], seed: str, meets: bool
) -> None:
    write_rounds(tmp_path, 50, 100)
    (tmp_path / "run.json").write_text(json.dumps(STARTED))
    # What is not refused for its starts is refused for its robot time.
    said = main_error(capsys, "curve", str(tmp_path), "--seed", seed, "--robot-minutes", "99")
    assert ("would run into those that the run learnt from, 200000 to 200099" in said) == meets


@pytest.mark.parametrize(("content", "message"), [("{", "cannot be read"), ('{"env": ""}', "lacks env_option, map,")])
def test_a_broken_run_json_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, message: str
) -> None:
    (tmp_path / "run.json").write_text(content)
    assert message in main_error(capsys, "curve", str(tmp_path))


@pytest.fixture(scope="module")
def run(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run: two rounds of two episodes."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    main(words(models, folder, "--episodes", "4", "--improve", "both"))
    return folder


def test_a_server_knows_which_version_simulated_actors_played(run: Path) -> None:
    assert [outcome.version for outcome in RunReleases(run).outcomes()] == [0, 0, 1, 1]


def test_a_run_is_measured_once_and_reported(models: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [
        "curve",
        str(run),
        "--at",
        "0",
        "--episodes",
        "3",
        "--last-episodes",
        "4",
        "--samples",
        "2",
        "--workers",
        "1",
    ]
    main(asked)

    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(told) == ["0", "4"]
    assert [told[n]["starts"] for n in told] == [4, 4]
    assert all(0 <= told[n][side] <= 1 for n in told for side in ("base", "steered"))
    assert told["0"]["low"] <= 0 <= told["0"]["high"]
    page = (run / "curve" / "report.html").read_text()
    assert "<svg" in page
    assert "http" not in page

    cells = {path: path.stat().st_mtime_ns for path in (run / "curve" / "played").iterdir()}
    assert len(cells) == 4
    main(asked)
    assert {path: path.stat().st_mtime_ns for path in (run / "curve" / "played").iterdir()} == cells
    main(
        words(models, run, "--episodes", "4", "--improve", "both", "--resume")
    )  # the measurement is no stranger in the run's folder


def test_a_loss_is_called_a_loss(tmp_path: Path) -> None:
    def point(episodes: int, gain: Estimate) -> Point:
        rate = Rate(0.5, 0.4, 0.6, 200)
        return Point(Moment(episodes, episodes, 1.0, 1.0), rate, rate, gain, Estimate(0.0, -0.1, 0.1))

    curve = LearningCurve(
        (point(0, Estimate(0.0, -0.02, 0.02)), point(75, Estimate(-0.2, -0.3, -0.1))), settings={"env_id": "task"}
    )
    assert headline(curve) == "The policy alone loses 20 points in 75 episodes"
    assert notes(curve)[0] == "After 75 episodes the policy alone is worse than at the start."
    write_curve_report(tmp_path / "report.html", curve, {})
    assert "{} [{}, {}]".format(*map(points, (-0.2, -0.3, -0.1))) in (tmp_path / "report.html").read_text()


def main_error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    return capsys.readouterr().err
