"""The scripted expert takes over an episode midway, and finishes it."""

from __future__ import annotations

import numpy as np
import pytest

from sim.env import PickPlace
from sim.expert import Expert
from sim.expert_modes import Mode, Phase
from sim.intervene import ExpertIntervener, create
from steer.errors import ConfigError
from steer.robot import Frame
from steer.spec import Array

STILL = np.array([0, 0, 0, 0, 0, 0, 1], np.float32)


def play(seed: int, before: int, ticks: int | None = None) -> tuple[bool, list[bool]]:
    """An episode of a robot that does nothing until the expert comes; success, and who drove."""
    environment = PickPlace(horizon=160)
    intervener = ExpertIntervener(before, ticks)
    intervener.begin()
    observation, info = environment.reset(seed=seed)
    drove, ended = [], False
    while not ended:
        takeover = intervener.act(Frame(observation, 0.0), None)
        drove.append(takeover is not None)
        action: Array = STILL if takeover is None or takeover.action is None else takeover.action
        observation, _, terminated, truncated, info = environment.step(action)
        ended = terminated or truncated
    environment.close()
    return bool(info["success"]), drove


def test_it_takes_over_at_its_tick_and_finishes_the_task() -> None:
    played = [play(seed, before=20) for seed in range(4)]
    assert sum(success for success, _ in played) >= 3
    for _, drove in played:
        assert drove == [tick >= 20 for tick in range(len(drove))]


def test_it_gives_back_after_its_ticks() -> None:
    _, drove = play(0, before=5, ticks=10)
    assert np.flatnonzero(drove).tolist() == list(range(5, 15))


def test_it_goes_on_with_a_cube_that_is_in_the_hand() -> None:
    environment = PickPlace(horizon=200)
    observation, info = environment.reset(seed=1)
    first = Expert(np.random.default_rng(0), Mode.CLEAN, retry=False)
    while first.phase is not Phase.TRANSPORT:
        observation, *_ = environment.step(first.act(observation["state"]))
    second = Expert.midway(np.random.default_rng(1), observation["state"])
    assert second.phase is Phase.LIFT
    ended = False
    while not ended:
        assert second.phase >= Phase.LIFT  # it does not put the cube down to begin again
        observation, _, terminated, truncated, info = environment.step(second.act(observation["state"]))
        ended = terminated or truncated
    environment.close()
    assert info["success"]


def test_its_options_are_checked() -> None:
    create({"after": "3", "ticks": "4"})
    with pytest.raises(ConfigError, match="no options"):
        create({"when": "3"})
    with pytest.raises(ConfigError, match="for 0"):
        create({"ticks": "0"})
