"""Who judges and who takes over in `steer run`, by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sim.intervene import ExpertIntervener
from steer.cli.operators import operators
from steer.client.outcomes import KeyOutcome
from steer.client.teleoperation import KeyboardIntervener
from steer.errors import ConfigError, RobotError
from steer.outcome import NOTHING
from steer.robot import Frame
from tests.fakes import ROBOT, FakeRobot

FRAME = Frame({}, 0.0)


def test_nobody_unless_asked() -> None:
    with operators("", "", FakeRobot()) as people:
        assert (people.outcome, people.intervener, people.keys, people.help) == (None, None, (), ())
        people.check(terminal=False)


def test_keys_go_to_both_who_judges_and_who_drives() -> None:
    with operators("key", "keyboard", FakeRobot()) as people:
        assert isinstance(people.outcome, KeyOutcome)
        assert isinstance(people.intervener, KeyboardIntervener)
        for key in "tyw":
            for listener in people.keys:
                listener(key)
        assert people.outcome.judge().success is True
        assert people.outcome.judge() == NOTHING
        takeover = people.intervener.act(FRAME, None)
        assert takeover is not None
        assert takeover.action is not None
        assert takeover.action[0] > 0
        assert "y ends the episode as a success" in people.help[0]
        assert "t takes over" in people.help[1]
        people.check(terminal=True)
        with pytest.raises(ConfigError, match="no terminal"):
            people.check(terminal=False)


def test_the_expert_needs_no_keys() -> None:
    with operators("", "expert:?after=2", FakeRobot()) as people:
        assert isinstance(people.intervener, ExpertIntervener)
        people.check(terminal=False)


def test_who_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nobody is called so"), operators("", "ghost", FakeRobot()):
        pass
    with pytest.raises(RobotError, match="no gamepad at"), operators("", f"gamepad:{tmp_path}/js0", FakeRobot()):
        pass
    many = replace(ROBOT.action, axes=ROBOT.action.axes * 5)
    with (
        pytest.raises(ConfigError, match="has 15 axes"),
        operators("", "keyboard", FakeRobot(replace(ROBOT, action=many))),
    ):
        pass
