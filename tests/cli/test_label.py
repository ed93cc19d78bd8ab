"""`steer label` and `steer train reward`, through the command line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from steer.checkpoints import add_document, read_checkpoint
from steer.cli.main import main
from steer.data.store import EpisodeStore
from tests.critics.reward import toys

SMALL = ["--keys", "state", "--hidden", "16", "--batch-size", "32", "--steps", "150", "--learning-rate", "3e-3"]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reward")
    toys.make_store(folder / "store", [True, False] * 50 + [None])
    arguments = ["--threads", "1", "--held-out", "0.5", "--gap-frames", "2", *SMALL]
    main(["train", "reward", str(folder / "store"), str(folder / "out"), *arguments])
    return folder / "out"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return toys.make_store(tmp_path / "store", [True, False, None, None], seed=7).path


def labels(store: Path) -> list[tuple[bool | None, str]]:
    return [(record.success, record.success_source.partition(":")[0]) for record in EpisodeStore.open(store).records()]


def test_a_classifier_is_trained_and_judged(classifier: Path) -> None:
    document = read_checkpoint(classifier).documents["verdict"]
    assert document["may_label"], document["reasons"]
    assert document["figures"]["episodes"] == 50


def test_it_can_be_inspected(classifier: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["inspect", str(classifier)])
    shown = capsys.readouterr().out
    assert "kind reward" in shown
    assert "goal_from_ee.x" in shown


def test_it_labels_what_nobody_has_and_says_how_it_agrees(
    classifier: Path, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["label", str(store), "--classifier", str(classifier)])
    assert labels(store) == [(True, "simulator"), (False, "simulator"), (True, "classifier"), (False, "classifier")]
    said = capsys.readouterr().out
    assert "Agreement with 2 labels of others" in said
    version = read_checkpoint(classifier).version
    assert f"1 episode labelled as success and 1 as failure by classifier:{version}" in said
    main(["label", str(store), "--classifier", str(classifier), "--all"])
    assert {source for _, source in labels(store)} == {"classifier"}


def test_a_dry_run_writes_nothing(classifier: Path, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["label", str(store), "--classifier", str(classifier), "--dry-run"])
    assert labels(store)[2:] == [(None, ""), (None, "")]
    assert "labelled as" not in capsys.readouterr().out


def test_one_that_may_not_label_is_refused_unless_it_is_allowed(
    classifier: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unready = tmp_path / "unready"
    shutil.copytree(classifier, unready)
    add_document(unready, "verdict", {"may_label": False, "reasons": ["it guesses"]})
    with pytest.raises(SystemExit):
        main(["label", str(store), "--classifier", str(unready)])
    assert "may not label: it guesses" in capsys.readouterr().err
    main(["label", str(store), "--classifier", str(unready), "--allow-unready"])
    assert labels(store)[2][1] == "classifier"


def test_a_person_labels_by_id_and_by_number_and_the_last_word_holds(store: Path) -> None:
    main(["label", str(store), "000000-000/2", "3", "--success", "--source", "anna"])
    main(["label", str(store), "3", "--failure", "--source", "ben"])
    assert labels(store)[2:] == [(True, "anna"), (False, "ben")]


def test_episodes_are_listed(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["label", str(store)])
    listed = capsys.readouterr().out
    assert all(f"000000-000/{number}" in listed for number in range(4))
    main(["label", str(store), "--unlabelled"])
    listed = capsys.readouterr().out
    assert "000000-000/1" not in listed
    assert "000000-000/3" in listed


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["0", "--success"], "give EPISODE"),
        (["0", "--success", "--failure", "--source", "anna"], "give EPISODE"),
        (["--success", "--source", "anna"], "give EPISODE"),
        (["9", "--success", "--source", "anna"], "no episode '9' among the 4"),
        (["--all"], "go with --classifier"),
        (["--classifier", "nowhere", "--all", "--dry-run"], "exclude each other"),
        (["--classifier", "nowhere", "--success"], "for labels by hand"),
        (["--classifier", "nowhere"], "no such checkpoint folder"),
    ],
)
def test_what_makes_no_sense_is_refused(
    store: Path, words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["label", str(store), *words])
    assert says in capsys.readouterr().err
