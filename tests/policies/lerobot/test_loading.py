"""What is said before any worker is started, and the wire itself."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policies.lerobot import load
from policies.lerobot.channel import Parcel, receive, send
from policies.lerobot.environment import VARIABLE, find_python
from policies.lerobot.steps import POST, PRE
from steer import registry
from steer.errors import CheckpointError, ConfigError, SpecError
from steer.model_name import ModelName
from tests.golden.compare_lerobot import compare

GOLDEN = Path(__file__).parents[2] / "golden" / "lerobot" / "policies"
DDIM = GOLDEN / "diffusion_state_ddim" / "pretrained_model"


def test_the_family_is_registered() -> None:
    assert registry.family(registry.POLICIES, "lerobot").load is load


def test_a_missing_environment_says_how_to_make_it() -> None:
    name = ModelName.parse(f"lerobot:{GOLDEN / 'act_state' / 'pretrained_model'}?python=/nowhere/python")
    with pytest.raises(ConfigError, match=r"/nowhere/python.*make install-lerobot"):
        load(name)


def test_the_interpreter_may_come_from_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)
    monkeypatch.setenv(VARIABLE, str(python))
    assert find_python() == python


def test_the_interpreter_may_lie_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / ".venv-lerobot" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to("/bin/sh")
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    assert find_python() == python


def refused(folder: Path) -> str:
    with pytest.raises((CheckpointError, SpecError)) as caught:
        load(ModelName("lerobot", str(folder)))
    return str(caught.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DDIM, tmp_path / "model"))


def edit(path: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    assert "pretrained_model" in refused(tmp_path)
    (tmp_path / "config.json").write_text('{"kind": "diffusion"}')
    assert "policy type None is not run here" in refused(tmp_path)


def test_an_unknown_type_of_policy_is_refused(folder: Path) -> None:
    edit(folder / "config.json", lambda config: config.update(type="tdmpc"))
    assert "'tdmpc' is not run here" in refused(folder)


def test_a_checkpoint_from_before_processors_is_refused(folder: Path) -> None:
    (folder / PRE).unlink()
    assert "migration command" in refused(folder)


def test_missing_weights_are_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "model.safetensors is missing" in refused(folder)


@pytest.mark.parametrize("file", [PRE, POST])
def test_a_step_that_names_a_class_is_refused(folder: Path, file: str) -> None:
    edit(folder / file, lambda content: content["steps"].append({"class": "os.system", "config": {}}))
    assert "'os.system' is not loaded" in refused(folder)


def test_a_sidecar_that_is_none_is_refused(folder: Path) -> None:
    (folder / "steer.json").write_text('{"action": {}, "observation": []}')
    assert "steer.json" in refused(folder)


def test_comparing_without_the_environment_fails_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "/nowhere/python")
    (row,) = compare(GOLDEN.parent)
    assert not row.passed
    assert "make install-lerobot" in row.quantity


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(ConfigError, match="no options"):
        load(ModelName.parse("lerobot:somewhere?steps=3"))


def test_parcels_arrive_as_they_were_sent() -> None:
    ours, theirs = multiprocessing.Pipe()
    images = np.arange(24, dtype=np.uint8).reshape(1, 2, 4, 3)
    send(ours, Parcel({"do": "encode", "text": "würfel"}, {"camera": images, "mask": np.array([[True, False]])}))
    got = receive(theirs)
    assert got.header == {"do": "encode", "text": "würfel"}
    np.testing.assert_array_equal(got.tensors["camera"], images)
    assert got.tensors["mask"].tolist() == [[True, False]]


def test_a_tensor_that_cannot_be_sent_sends_nothing() -> None:
    ours, theirs = multiprocessing.Pipe()
    with pytest.raises(SpecError, match="complex128"):
        send(ours, Parcel({}, {"good": np.zeros(1, np.float32), "bad": np.zeros(1, np.complex128)}))
    assert not theirs.poll()
