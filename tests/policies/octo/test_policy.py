"""What `OctoPolicy` adds to the contract: instructions, goals, history, data sets, cameras, and the options of its name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from policies.octo.language import Encoded, TokenIds
from policies.octo.policy import OctoPolicy
from steer import registry
from steer.action import ActionAxis, ActionSpec
from steer.errors import CheckpointError, ConfigError, SpecError, UnsupportedError
from steer.observation import Batch, ObservationSpec, Task
from steer.robot import RobotSpec, write_robot
from tests.policies.octo.toys import TINY

SEED = np.array([5])


class Dictionary:
    """Instructions by hand; counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def encode(self, instruction: str) -> Encoded:
        self.asked += 1
        return TokenIds.padded([3 + len(instruction) % 50, 1], 16)


def load(**options: str) -> OctoPolicy:
    given = {"dataset": "bridge_dataset"} | options
    policy = registry.policy(f"octo:{TINY}?" + "&".join(f"{key}={value}" for key, value in given.items()))
    assert isinstance(policy, OctoPolicy)
    return policy


@pytest.fixture(scope="module")
def shared() -> OctoPolicy:
    return load()


@pytest.fixture
def policy(shared: OctoPolicy, monkeypatch: pytest.MonkeyPatch) -> Iterator[OctoPolicy]:
    monkeypatch.setattr(shared, "_instructions", Dictionary())
    shared._prefix_of.cache_clear()
    yield shared
    shared._prefix_of.cache_clear()


def observe(policy: OctoPolicy, task: Task | None = None, first: bool = True) -> Batch:
    batch = Batch.stack([policy.spec.observation.generate(np.random.default_rng(3))], [task or Task()])
    return replace(batch, mask=np.array([[first, True]]))


def act(policy: OctoPolicy, batch: Batch) -> np.ndarray:
    return policy.sample(policy.encode(batch), 1, SEED)


def test_instructions_and_goals_change_what_is_proposed(policy: OctoPolicy) -> None:
    goal = np.full((10, 12, 3), 200, np.uint8)
    tasks = [Task(), Task("open the drawer"), Task("close it"), Task("", goal), Task("close it", goal)]
    got = [act(policy, observe(policy, task)) for task in tasks]
    for i, one in enumerate(got):
        for other in got[:i]:
            assert np.abs(one - other).max() > 1e-4


def test_blanks_are_no_instruction(policy: OctoPolicy) -> None:
    np.testing.assert_array_equal(act(policy, observe(policy, Task("  "))), act(policy, observe(policy)))


def test_an_instruction_is_encoded_once(policy: OctoPolicy) -> None:
    for _ in range(3):
        policy.encode(observe(policy, Task("open the drawer")))
    assert isinstance(policy._instructions, Dictionary)
    assert policy._instructions.asked == 1


def test_padding_frames_are_not_seen(policy: OctoPolicy) -> None:
    batch = observe(policy, first=False)
    changed = {key: value.copy() for key, value in batch.arrays.items()}
    for value in changed.values():
        value[:, 0] = 255 - value[:, 0]
    other = replace(batch, arrays=changed)
    np.testing.assert_array_equal(act(policy, other), act(policy, batch))
    shown = replace(other, mask=np.array([[True, True]]))
    assert np.abs(act(policy, shown) - act(policy, batch)).max() > 1e-4


def test_a_goal_image_of_the_wrong_kind_is_refused(policy: OctoPolicy) -> None:
    with pytest.raises(SpecError, match="goal_image"):
        policy.encode(observe(policy, Task("", np.zeros((8, 8), np.uint8))))


def test_seeds_must_be_as_many_as_observations(policy: OctoPolicy) -> None:
    with pytest.raises(SpecError, match="one for each of the 1"):
        policy.sample(policy.encode(observe(policy)), 1, np.array([1, 2]))


def test_an_instruction_without_a_tokenizer_is_refused() -> None:
    policy = load()
    with pytest.raises(UnsupportedError, match=r"\?tokenizer=PATH"):
        policy.encode(observe(policy, Task("open the drawer")))


def test_a_data_set_of_six_axes_gives_six() -> None:
    policy = load(dataset="six_dof_dataset")
    assert policy.spec.action.size == 6
    got = act(policy, observe(policy))
    assert got.shape == (1, 1, 4, 6)
    policy.spec.action.validate(got)


def test_another_rule_or_data_set_is_another_version() -> None:
    bounds = load(norm="bounds")
    assert bounds.version != load().version
    assert bounds.spec.action.high[0] != load().spec.action.high[0]


def test_a_camera_has_another_key_or_is_left_out() -> None:
    assert load(primary="front", wrist="").spec.observation.keys == ("front",)
    with pytest.raises(ConfigError, match="at least one"):
        load(primary="", wrist="")
    with pytest.raises(ConfigError, match="share"):
        load(primary="front", wrist="front")


def robot(path: Path, size: int) -> Path:
    axes = tuple(ActionAxis(f"d{i}", "m", -1.0, 1.0) for i in range(size))
    action = ActionSpec(axes, "delta", "base", "measured", "none", "none", 10.0)
    write_robot(path, RobotSpec("arm", action, ObservationSpec(())))
    return path


def test_a_sidecar_states_what_actions_mean(tmp_path: Path) -> None:
    assert load(robot=str(robot(tmp_path / "arm.json", 7))).spec.action.frame == "base"
    assert load(rate_hz="15").spec.action.rate_hz == 15
    assert load().spec.action.frame == "unknown"
    with pytest.raises(ConfigError, match="6 action axes, but the data set has 7"):
        load(robot=str(robot(tmp_path / "six.json", 6)))
    with pytest.raises(ConfigError, match="the sidecar states the rate"):
        load(robot=str(tmp_path / "arm.json"), rate_hz="5")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"dataset": "taco"}, r"no statistics of 'taco'.*bridge_dataset.*six_dof_dataset"),
        ({"norm": "max"}, "norm='max'"),
        ({"crop": "maybe"}, "crop='maybe'"),
        ({"window": "11"}, "1 to 10 frames"),
        ({"colour": "red"}, "no options"),
        ({"tokenizer": "/nowhere"}, "no file"),
        ({"instructions": "/nowhere"}, "not readable"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load(**options)


def test_a_step_that_is_not_there_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"no step 1; there are \[300000\]"):
        load(step="1")
