"""Both on-disk forms are read, what is not wanted is passed over, and a damaged file says what is wrong."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from critics.vgps.flax_checkpoint import locate, read_arrays
from steer.errors import CheckpointError
from steer.spec import Array
from tests.critics.vgps import toys

PATH = ("state", "target_params", "modules_critic")
SMALL = {"Dense_0/kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "Dense_0/bias": np.ones(3, np.float32)}


def read(path: Path) -> dict[str, Array]:
    return dict(read_arrays(locate(path), PATH))


def test_both_forms_hold_the_same() -> None:
    directory, file = read(toys.DIRECTORY_FORM), read(toys.FILE_FORM)
    assert directory.keys() == file.keys()
    for name, value in directory.items():
        np.testing.assert_array_equal(value, file[name])


def test_arrays_come_back_as_they_were_written(tmp_path: Path) -> None:
    written = {**SMALL, "lagrange": np.array(2, np.int32), "half": np.array([1.5], np.float16)}
    found = read(toys.write_agent(tmp_path / "checkpoint_3", written))
    assert found.keys() == written.keys()
    for name, value in written.items():
        np.testing.assert_array_equal(found[name], value)
        assert found[name].dtype == value.dtype


def test_the_latest_of_several_is_taken(tmp_path: Path) -> None:
    for step in (9, 10):
        toys.write_agent(tmp_path / f"checkpoint_{step}", {"step": np.array([step])})
    (tmp_path / "checkpoint_tmp").touch()
    assert locate(tmp_path).name == "checkpoint_10"
    assert locate(tmp_path / "checkpoint_9").name == "checkpoint_9"


@pytest.mark.parametrize("place", ["nowhere", "empty"])
def test_a_place_without_a_checkpoint_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="checkpoint_STEP"):
        locate(tmp_path / place)


def test_what_comes_before_is_never_held(tmp_path: Path) -> None:
    other = {"mu": [toys.packed(np.zeros(1 << 18, np.float32)) for _ in range(64)]}
    path = toys.write_agent(tmp_path / "checkpoint_1", SMALL, opt_states=other)
    assert path.stat().st_size > 64 << 20
    tracemalloc.start()
    found = read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.keys() == SMALL.keys()
    assert peak < 8 << 20


def test_what_comes_behind_is_not_read(tmp_path: Path) -> None:
    path = toys.write_agent(tmp_path / "checkpoint_1", SMALL)
    content = msgpack.unpackb(path.read_bytes())
    content["state"]["zzz"] = "x" * 5000
    path.write_bytes(msgpack.packb(content)[:-4000])
    assert read(path).keys() == SMALL.keys()


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = toys.write_agent(tmp_path / "checkpoint_1", SMALL)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="ends before state/target_params/modules_critic does"):
        read(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "ends before"),
        (b"PK\x03\x04 an archive", "not a Flax checkpoint"),
        (msgpack.packb({"state": {"params": {}}}), r"state has no 'target_params', only \['params'\]"),
        (msgpack.packb({"model": 1}), r"the root has no 'state', only \['model'\]"),
        (msgpack.packb({"state": {"target_params": 3}}), "not a Flax checkpoint"),
    ],
)
def test_something_else_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "checkpoint_1").write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        read(tmp_path / "checkpoint_1")


@pytest.mark.parametrize(
    ("leaf", "words"),
    [
        ("PLACEHOLDER://kernel", "expected an array stored in this very file"),
        (msgpack.ExtType(5, b""), "extension type 5"),
        (msgpack.ExtType(1, msgpack.packb([[2], "float32", b"123"])), "not a Flax checkpoint"),
        (msgpack.ExtType(1, msgpack.packb([[1], "object", b"12345678"])), "not a Flax checkpoint"),
        (msgpack.ExtType(1, msgpack.packb([[1], "bfloat16", b"12"])), "bfloat16"),
    ],
)
def test_a_leaf_that_is_no_array_is_refused(tmp_path: Path, leaf: Any, words: str) -> None:
    content = {"state": {"target_params": {"modules_critic": {"Dense_0": {"kernel": leaf}}}}}
    (tmp_path / "checkpoint_1").write_bytes(msgpack.packb(content))
    with pytest.raises(CheckpointError, match=words):
        read(tmp_path / "checkpoint_1")
