"""Bounds, images and instructions."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from structlog.testing import capture_logs

from critics.vgps.bounds import PUBLISHED, Bounds, read_action, read_bounds
from critics.vgps.images import resize_lanczos3
from critics.vgps.language import EmbeddingTable, make_instruction_encoder
from steer.draft import unknown_fields
from steer.errors import ConfigError, SpecError
from steer.observation import ObservationSpec
from steer.robot import RobotSpec, write_robot
from steer.spec import Array
from tests.fakes import ACTION, ROBOT


def test_bridge_actions_are_mapped_with_the_gripper() -> None:
    low, middle = [-0.05, 0, 0.05, -0.25, 0.125, 9, 0], [0, 0, 0, 0, 0, 0, 0.75]
    mapped = PUBLISHED["bridge"].to_critic(np.array([low, middle]))
    inside = 1 - 1e-5
    np.testing.assert_allclose(mapped[0], [-inside, 0, inside, -inside, 0.5, inside, -inside], atol=1e-12)
    np.testing.assert_allclose(mapped[1], [0, 0, 0, 0, 0, 0, 0.5], atol=1e-12)


@pytest.mark.parametrize("name", ["bridge", "fractal"])
def test_nobody_states_what_the_axes_mean(name: str) -> None:
    action = read_bounds(name).action_spec()
    robot = RobotSpec("r", action, ObservationSpec(()))
    assert action.names == ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper")
    assert len(unknown_fields(robot)) == 5 + 7
    assert action.differences(action) != []
    assert (action.axes[-1].low, action.axes[-1].high) == (0.0, 1.0)


def test_bounds_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "bounds.json"
    file.write_text(json.dumps({"low": [-1, -2.5], "high": [1, 2.5], "rate_hz": 10}))
    assert read_bounds(str(file)) == Bounds((-1.0, -2.5), (1.0, 2.5), 10.0)
    assert read_bounds(str(file)).action_spec().names == ("a0", "a1")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"low": [1], "high": [0], "rate_hz": 5}', "each low below its high"),
        ('{"low": [0, 0], "high": [1], "rate_hz": 5}', "as many"),
        ('{"low": [0]}', "high"),
        ("low: 3", "not JSON"),
    ],
)
def test_bounds_that_are_none_are_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "bounds.json").write_text(text)
    with pytest.raises((ConfigError, SpecError), match=words):
        read_bounds(str(tmp_path / "bounds.json"))


def test_unknown_bounds_list_the_known() -> None:
    with pytest.raises(ConfigError, match=r"'briddge' are none of \['bridge', 'fractal'\]"):
        read_bounds("briddge")


def test_a_sidecar_states_the_action(tmp_path: Path) -> None:
    write_robot(tmp_path / "robot.json", ROBOT)
    assert read_action(tmp_path / "robot.json") == ACTION
    with pytest.raises(ConfigError, match=r"nothing\.json cannot be read"):
        read_action(tmp_path / "nothing.json")


def test_an_image_of_that_size_is_left_alone() -> None:
    image = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)
    assert resize_lanczos3(image, (5, 7)) is image


def test_halving_weighs_twelve_pixels_and_rounds_once() -> None:
    """A step edge: Lanczos overshoots on both sides of it, and antialiasing spreads it over the shrunken kernel."""
    row = np.repeat(np.array([0] * 8 + [200] * 8, np.uint8)[None, :, None], 3, axis=2)
    image = np.repeat(row, 16, axis=0)
    got = resize_lanczos3(image, (8, 8))
    assert (got == got[:1]).all()
    centres = 2 * (np.arange(8) + 0.5)
    distance = np.abs(centres[:, None] - (np.arange(16) + 0.5)) / 2
    weights = np.sinc(distance) * np.sinc(distance / 3) * (distance < 3)
    expected = weights @ row[0, :, 0] / weights.sum(1)
    assert expected.max() > 200
    np.testing.assert_array_equal(got[0, :, 0], np.clip(np.rint(expected), 0, 255))


def test_sizes_may_differ_per_axis_and_grow() -> None:
    flat = np.full((4, 6, 3), (10, 128, 250), np.uint8)
    got = resize_lanczos3(flat, (9, 3))
    assert got.shape == (9, 3, 3)
    assert (got == (10, 128, 250)).all()


@pytest.fixture(params=["json", "npz"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    vectors = {"open the drawer": [1.0, 2.0], "close it": [3.0, 4.5]}
    path = tmp_path / f"table.{request.param}"
    if request.param == "json":
        path.write_text(json.dumps(vectors))
    else:
        np.savez(path, instructions=np.array(list(vectors)), embeddings=np.array(list(vectors.values()), np.float32))
    return path


def test_a_table_knows_its_instructions(table: Path) -> None:
    encoder = make_instruction_encoder(str(table))
    got = encoder(["close it", "open the drawer", "close it"])
    np.testing.assert_array_equal(got, np.array([[3, 4.5], [1, 2], [3, 4.5]], np.float32))
    assert got.dtype == np.float32


@pytest.mark.parametrize(
    ("instruction", "words"),
    [
        ("open the drawr", r"near it are \['open the drawer'\]"),
        ("Open the drawer", "is not among the 2"),
        ("x" * 2000, r"\(2000 characters\)"),
    ],
)
def test_an_instruction_that_is_not_in_the_table_is_refused(table: Path, instruction: str, words: str) -> None:
    with pytest.raises(SpecError, match=words) as caught:
        EmbeddingTable.read(table)([instruction])
    assert len(str(caught.value)) < 500


def test_no_instruction_is_the_zero_vector_and_said_once(table: Path) -> None:
    encoder = EmbeddingTable.read(table)
    with capture_logs() as logs:
        got = encoder(["", "close it", ""])
    np.testing.assert_array_equal(got, np.array([[0, 0], [3, 4.5], [0, 0]], np.float32))
    assert [(log["log_level"], log["event"][:18]) for log in logs] == [("warning", "no instruction was")]
    own = EmbeddingTable(["", "a"], np.array([[1.0], [2.0]], np.float32))
    assert own([""]).tolist() == [[1.0]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1, 2]", "no object"),
        ("{}", "one vector for each"),
        ('{"a": [1, 2], "b": [3]}', "no table"),
        ('{"a": ["x"]}', "no table"),
        ('{"a": [NaN, 1]}', "not finite"),
        ("nonsense", "no table"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "table.json").write_text(text)
    with pytest.raises(ConfigError, match=words):
        EmbeddingTable.read(tmp_path / "table.json")


def test_pickled_objects_in_a_table_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", instructions=np.array(["a"], object), embeddings=np.zeros((1, 2), np.float32))
    with pytest.raises(ConfigError, match="no table"):
        EmbeddingTable.read(tmp_path / "t.npz")


def test_without_a_table_and_tensorflow_both_ways_out_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("critics.vgps.language.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"tensorflow_hub, tensorflow_text; write vgps:PATH\?embeddings=TABLE"):
        make_instruction_encoder("")


def test_muse_is_asked_once_per_instruction(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def model(instructions: list[str]) -> Array:
        asked.extend(instructions)
        return np.full((1, 512), len(instructions[0]), np.float64)

    hub = SimpleNamespace(load=lambda handle: model)
    monkeypatch.setitem(sys.modules, "tensorflow_hub", hub)
    monkeypatch.setitem(sys.modules, "tensorflow_text", SimpleNamespace())
    monkeypatch.setattr("critics.vgps.language.find_spec", lambda name: object())
    encoder = make_instruction_encoder("")
    for _ in range(2):
        got = encoder(["go", "stop"])
    assert got.shape == (2, encoder.size)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got[:, 0], [2, 4])
    assert asked == ["go", "stop"]
