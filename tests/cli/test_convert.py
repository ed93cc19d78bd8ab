"""`steer convert`: a draft first, then a store, or a clear word about every episode that does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from steer.cli.main import main
from steer.data import EpisodeStore


def write_npz(folder: Path, name: str, **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    content: dict[str, Any] = {
        "observation.state": np.arange(8.0).reshape(4, 2),
        "action": np.array([[0.1, -2], [0.2, 0], [0.3, 2]]),
        "success": np.array(True),
    }
    content = {key: value for key, value in {**content, **changes}.items() if value is not None}
    np.savez(folder / name, **content)
    return folder / name


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["convert", *words])
    assert ended.value.code == 2
    error: str = capsys.readouterr().err
    return error


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_npz(tmp_path / "mine", "b.npz", **{"instruction": np.array("push"), "step.value": np.ones(3)})
    write_npz(tmp_path / "mine", "a.npz", success=np.array(False), **{"step.value": np.zeros(3)})
    return tmp_path / "mine"


@pytest.fixture
def sidecar(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    path = tmp_path / "robot.json"
    refused(capsys, str(source), str(tmp_path / "draft"), "--robot", str(path), "--rate-hz", "20")
    robot = json.loads(path.read_text())
    robot["action"] |= {
        "kind": "delta",
        "frame": "base",
        "reference": "measured",
        "rotation": "none",
        "gripper": "none",
    }
    for axis in robot["action"]["axes"]:
        axis["unit"] = "m"
    path.write_text(json.dumps(robot))
    return path


def test_without_a_sidecar_a_draft_is_written_and_explained(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dest = tmp_path / "new" / "store"
    assert "--rate-hz" in refused(capsys, str(source), str(dest))
    error = refused(capsys, str(source), str(dest), "--rate-hz", "20")
    assert "kind, frame, reference, rotation, gripper" in error
    assert not dest.exists()
    robot = json.loads((tmp_path / "new" / "store.robot.json").read_text())
    assert robot["action"]["kind"] == "unknown"
    assert robot["action"]["rate_hz"] == 20
    assert [(axis["low"], axis["high"]) for axis in robot["action"]["axes"]] == [
        (pytest.approx(0.1), pytest.approx(0.3)),
        (-2, 2),
    ]


def test_npz_episodes_become_a_store(
    source: Path, sidecar: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["convert", str(source), str(tmp_path / "store"), "--robot", str(sidecar)])
    output = capsys.readouterr().out
    assert "2 episodes, 6 steps" in output
    assert "unknown" not in output
    failed, succeeded = EpisodeStore.open(tmp_path / "store").episodes()
    assert (failed.success, failed.terminated, failed.truncated, failed.rewards.tolist()) == (
        False,
        False,
        True,
        [0, 0, 0],
    )
    assert (succeeded.success, succeeded.terminated, succeeded.rewards.tolist()) == (True, True, [0, 0, 1])
    assert succeeded.success_source == "file"
    assert succeeded.task.instruction == "push"
    assert succeeded.info == {"file": "b.npz"}
    assert succeeded.steps["value"].tolist() == [1, 1, 1]
    np.testing.assert_array_equal(
        succeeded.observations["state"], np.arange(8, dtype=np.float32).reshape(4, 2), strict=True
    )


def test_what_the_file_says_goes_before_what_is_assumed(tmp_path: Path, sidecar: Path) -> None:
    state = np.arange(6, dtype=np.float32).reshape(3, 2)
    changes = {"reward": np.array([1.0, 2, 3]), "terminated": np.array([0, 0, 0]), "truncated": np.array(False)}
    write_npz(tmp_path / "other", "a.npz", **{"observation.state": state}, **changes)
    main(["convert", str(tmp_path / "other"), str(tmp_path / "store"), "--robot", str(sidecar)])
    episode = EpisodeStore.open(tmp_path / "store").episode(0)
    assert (episode.rewards.tolist(), episode.terminated, episode.truncated) == ([1, 2, 3], False, False)
    np.testing.assert_array_equal(episode.observations["state"], np.concatenate([state, state[-1:]]))


def test_unknown_fields_may_stay_and_are_told(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, str(source), str(tmp_path / "store"), "--rate-hz", "20")
    main(["convert", str(source), str(tmp_path / "store")])
    assert "still unknown" in capsys.readouterr().out
    assert EpisodeStore.open(tmp_path / "store").robot.action.kind == "unknown"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"action": None}, "has no action"),
        ({"action": np.zeros((3, 5))}, "A=2"),
        ({"action": np.full((3, 2), 9.0)}, "expected [0.1"),
        ({"action": np.array([[0.1, np.nan]] * 3)}, "not finite"),
        ({"observation.state": np.zeros((9, 2))}, "expected 3 or 4 rows"),
        ({"observation.state": np.zeros((4, 7))}, "state: got shape"),
        ({"observation.state": None}, "'state'] missing"),
        ({"reward": np.zeros(2)}, "rewards"),
        ({"success": np.array("yes")}, "success is <U3"),
        ({"colour": np.zeros(3)}, "cannot place ['colour']"),
        ({"step.value": np.array([{}, {}, {}], object)}, "cannot be read"),
    ],
)
def test_a_file_that_does_not_fit_is_named_and_nothing_is_left(
    source: Path,
    sidecar: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    message: str,
) -> None:
    write_npz(source, "c.npz", **changes)
    error = refused(capsys, str(source), str(tmp_path / "store"), "--robot", str(sidecar))
    assert "1 of 3 episodes" in error
    assert str(source / "c.npz") in error
    assert message in error
    assert [path.name for path in tmp_path.iterdir() if "store" in path.name] == []


def test_broken_files_can_be_left_out(
    source: Path, sidecar: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "c.npz").write_bytes((source / "a.npz").read_bytes()[:100])
    main(["convert", str(source), str(tmp_path / "store"), "--robot", str(sidecar), "--skip-broken"])
    assert f"left out: {source / 'c.npz'}" in capsys.readouterr().out
    assert len(EpisodeStore.open(tmp_path / "store")) == 2


def test_a_destination_that_exists_is_left_alone(
    source: Path, sidecar: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "store").mkdir()
    assert "exists" in refused(capsys, str(source), str(tmp_path / "store"), "--robot", str(sidecar))
    (tmp_path / "empty").mkdir()
    assert "neither" in refused(capsys, str(tmp_path / "empty"), str(tmp_path / "new"), "--robot", str(sidecar))


def test_a_sidecar_that_is_no_robot_is_named(
    source: Path, sidecar: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sidecar.write_text("{")
    assert "robot.json is not JSON" in refused(capsys, str(source), str(tmp_path / "store"), "--robot", str(sidecar))
    sidecar.write_text("{}")
    assert "robot.json" in refused(capsys, str(source), str(tmp_path / "store"), "--robot", str(sidecar))


def test_a_replay_buffer_becomes_a_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = zarr.open_group(tmp_path / "pusht.zarr", mode="w", zarr_format=2)
    root.create_array("data/state", data=np.arange(10, dtype=np.float32).reshape(5, 2))
    root.create_array("data/unused", data=np.zeros(5, np.float32))
    root.create_array("data/action", data=np.arange(5, dtype=np.float32)[:, None])
    root.create_array("meta/episode_ends", data=np.array([2, 5]))
    words = [str(tmp_path / "pusht.zarr"), str(tmp_path / "store")]
    refused(capsys, *words, "--rate-hz", "10")
    sidecar = tmp_path / "store.robot.json"
    robot = json.loads(sidecar.read_text())
    assert robot["action"]["rate_hz"] == 10
    robot["observation"]["arrays"] = [a for a in robot["observation"]["arrays"] if a["name"] == "state"]
    sidecar.write_text(json.dumps(robot))
    main(["convert", *words])
    store = EpisodeStore.open(tmp_path / "store")
    assert [record.length for record in store.records()] == [2, 3]
    assert store.episode(1).observations["state"].tolist() == [[4, 5], [6, 7], [8, 9], [8, 9]]
    assert store.episode(1).observations.keys() == {"state"}
