"""What a checkpoint and its sidecar say of inputs and outputs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from policies.lerobot.features import (
    Feature,
    Sidecar,
    Source,
    action_spec,
    input_features,
    observation_spec,
    read_json,
    read_sidecar,
    take,
)
from policies.lerobot.steps import PRE, read_steps, state_file
from steer.errors import CheckpointError, SpecError
from steer.serial import to_json
from steer.spec import ArraySpec
from tests.policies.lerobot.toy import ACTION

STATE = Feature("observation.state", "STATE", (2,))
REST = Feature("observation.environment_state", "ENV", (1,))
FRONT = Feature("observation.images.front", "VISUAL", (3, 48, 64))
VECTOR = ArraySpec("state", "float32", (3,), ("ee.x", "ee.y", "cube.x"))
SPLIT = {
    "observation.state": Source("state", ("ee.x", "ee.y")),
    "observation.environment_state": Source("state", ("cube.x",)),
}


def test_keys_and_shapes_without_a_sidecar() -> None:
    spec, sources = observation_spec((STATE, FRONT), 2, None)
    assert spec.window == 2
    assert spec["state"] == ArraySpec("state", "float32", (2,))
    assert spec["camera.front"] == ArraySpec("camera.front", "uint8", (48, 64, 3))
    assert sources["observation.images.front"] == Source("camera.front")


def test_two_features_may_be_parts_of_one_vector() -> None:
    spec, sources = observation_spec((STATE, REST), 1, Sidecar(ACTION, (VECTOR,), SPLIT))
    arrays = {"state": np.array([[[1.0, 2.0, 3.0]]], np.float32)}
    assert spec.keys == ("state",)
    assert take(sources["observation.state"], spec, arrays).tolist() == [[[1.0, 2.0]]]
    assert take(sources["observation.environment_state"], spec, arrays).tolist() == [[[3.0]]]


def test_keys_that_no_feature_uses_are_not_asked_for() -> None:
    unused = ArraySpec("camera.top", "uint8", (8, 8, 3))
    spec, _ = observation_spec((STATE, REST), 1, Sidecar(ACTION, (VECTOR, unused), SPLIT))
    assert spec.keys == ("state",)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({**SPLIT, "observation.state": Source("state")}, "name as many entries"),
        ({**SPLIT, "observation.state": Source("state", ("ee.x", "ee.z"))}, r"no entry called 'ee\.z'"),
        ({**SPLIT, "observation.state": Source("joints")}, "no observation called 'joints'"),
        ({**SPLIT, "observation.velocity": Source("state")}, r"no input features \['observation\.velocity'\]"),
    ],
)
def test_a_sidecar_that_does_not_fit_is_refused(features: dict[str, Source], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        observation_spec((STATE, REST), 1, Sidecar(ACTION, (VECTOR,), features))


def test_a_sidecar_survives_its_file(tmp_path: Path) -> None:
    sidecar = Sidecar(ACTION, (VECTOR,), SPLIT)
    assert read_sidecar(tmp_path) is None
    (tmp_path / "steer.json").write_text(json.dumps(to_json(sidecar)))
    assert read_sidecar(tmp_path) == sidecar


def test_bounds_of_actions_come_from_the_data() -> None:
    low, high = np.array([-1.0, 2.0], np.float32), np.array([1.0, 2.0], np.float32)
    spec = action_spec(2, {"action.min": low, "action.max": high}, None, 30.0)
    assert spec.low.tolist() == [-1.0, 2.0]
    assert spec.high.tolist() == [1.0, 3.0]
    assert (spec.kind, spec.rate_hz) == ("unknown", 30.0)


def test_bounds_from_moments_alone_are_five_deviations() -> None:
    statistics = {"action.mean": np.array([1.0], np.float32), "action.std": np.array([0.5], np.float32)}
    assert action_spec(1, statistics, None, 30.0).high.tolist() == [3.5]


def test_bounds_that_nobody_states_are_asked_for() -> None:
    with pytest.raises(CheckpointError, match=r"steer\.json"):
        action_spec(1, {}, None, 30.0)


def test_a_sidecar_with_other_axes_is_refused() -> None:
    with pytest.raises(SpecError, match="2 action axes, but the checkpoint has 7"):
        action_spec(7, {}, Sidecar(ACTION, (VECTOR,)), 30.0)


def test_features_that_the_pre_processor_renames_are_asked_for_by_their_first_name(tmp_path: Path) -> None:
    config = {"input_features": {"observation.state": {"type": "STATE", "shape": [2]}}}
    (feature,) = input_features(config, {"observation.joints": "observation.state"}, tmp_path)
    assert feature.default_key == "joints"


def test_a_damaged_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="input_features"):
        input_features({"input_features": {"observation.state": {}}}, {}, tmp_path)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_json(tmp_path / "config.json")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="not readable as JSON"):
        read_json(tmp_path / "config.json")


@pytest.mark.parametrize(
    "step",
    [{"class": "subprocess.run"}, {"registry_name": "normalizer_processor", "class": "x.y"}, {"registry_name": "mine"}],
)
def test_only_lerobots_own_steps_are_loaded(tmp_path: Path, step: dict[str, str]) -> None:
    (tmp_path / PRE).write_text(json.dumps({"name": "p", "steps": [step]}))
    with pytest.raises(CheckpointError, match="is not loaded"):
        read_steps(tmp_path / PRE)


def test_statistics_outside_the_checkpoint_are_not_read(tmp_path: Path) -> None:
    steps = [{"registry_name": "normalizer_processor", "state_file": "../other.safetensors"}]
    with pytest.raises(CheckpointError, match="outside the checkpoint"):
        state_file(tmp_path / PRE, steps, "normalizer_processor")
