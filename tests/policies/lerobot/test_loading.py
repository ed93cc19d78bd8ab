"""What is said before any worker is started, and the wire itself."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from policies.lerobot import load
from policies.lerobot.channel import Parcel, receive, send
from policies.lerobot.environment import VARIABLE, find_python
from steer import registry
from steer.errors import CheckpointError, ConfigError, SpecError
from steer.model_name import ModelName

GOLDEN = Path(__file__).parents[2] / "golden" / "lerobot" / "policies"


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


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="pretrained_model"):
        load(ModelName("lerobot", str(tmp_path)))
    (tmp_path / "config.json").write_text('{"kind": "diffusion"}')
    with pytest.raises(CheckpointError, match="states no policy type"):
        load(ModelName("lerobot", str(tmp_path)))


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
