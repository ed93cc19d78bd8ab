"""The expert: every mode does what it is named after, and demonstrations are whole, reproducible episodes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from robots.panda_arm import PANDA_ACTION
from sim.demonstrations import demonstrate
from sim.env import PickPlace
from sim.expert import Expert
from sim.expert_modes import MODE_PROBABILITIES, Mode, Phase, draw_mode, draw_strategy
from sim.pick_place import STATE_SPEC
from steer.data.episode import check_episode


def column(states: np.ndarray, name: str) -> np.ndarray:
    return states[:, STATE_SPEC.index(name)]


def watch(
    env: PickPlace, seed: int, mode: Mode, retry: bool = False
) -> tuple[np.ndarray, np.ndarray, list[Phase], bool]:
    """States [N, 20], actions [N, 7] and phases of one episode, and whether it succeeded."""
    state = env.reset(seed=seed)[0]["state"]
    expert = Expert(np.random.default_rng(seed), mode, retry)
    states, actions, phases, ended = [], [], [], False
    while not ended:
        phases.append(expert.phase)
        states.append(state)
        actions.append(expert.act(state))
        observation, _, success, truncated, _ = env.step(actions[-1])
        state, ended = observation["state"], success or truncated
    return np.stack(states), np.stack(actions), phases, success


def test_clean_succeeds(env: PickPlace) -> None:
    outcomes = [watch(env, seed, Mode.CLEAN) for seed in range(10)]
    assert all(success for *_, success in outcomes)
    assert np.mean([len(states) for states, *_ in outcomes]) < 75


@pytest.mark.parametrize("mode", [Mode.MISS, Mode.HIGH])
def test_missed_grasps_lift_no_cube_and_go_on(env: PickPlace, mode: Mode) -> None:
    lifted, finished = 0, 0
    for seed in range(4):
        states, _, phases, _ = watch(env, seed, mode)
        lifted += column(states, "cube.z").max() > 0.06
        finished += phases[-1] is Phase.RISE
    assert lifted <= 1  # a cube may get caught by chance
    assert finished == 4


def test_miss_grasps_beside_and_high_grasps_above(env: PickPlace) -> None:
    def at_close(mode: Mode) -> tuple[float, float]:
        states, _, phases, _ = watch(env, 1, mode)
        state = states[phases.index(Phase.CLOSE)]
        offset = state[14:17]
        return float(np.linalg.norm(offset[:2])), float(-offset[2])

    beside, _ = at_close(Mode.MISS)
    aligned, above = at_close(Mode.HIGH)
    assert beside > 0.025
    assert aligned < 0.015
    assert above > 0.02


def test_early_opens_between_lift_and_lowering(env: PickPlace) -> None:
    states, actions, phases, _ = watch(env, 2, Mode.EARLY)
    transport = np.array([phase is Phase.TRANSPORT for phase in phases])
    grip = actions[transport, 6]
    assert grip[0] < 0
    assert grip[-1] > 0
    assert column(states, "cube.z")[transport].max() > 0.06


def test_drop_releases_from_high(env: PickPlace) -> None:
    states, _, phases, _ = watch(env, 2, Mode.DROP)
    assert column(states, "ee.z")[phases.index(Phase.OPEN)] > 0.10


def test_stall_stops_for_good(env: PickPlace) -> None:
    stopped = 0
    for seed in range(4):
        states, _, phases, success = watch(env, seed, Mode.STALL)
        stopped += not success and phases[-1] is phases[-30] and bool(np.ptp(states[-30:, :3], axis=0).max() < 0.05)
    assert stopped >= 3  # a short phase may be over before it stalls


def test_retries_repair_most_failures(env: PickPlace) -> None:
    outcomes = [
        watch(env, seed, mode, retry=True)[3] for mode in (Mode.MISS, Mode.HIGH, Mode.EARLY) for seed in range(3)
    ]
    assert sum(outcomes) >= 7


def test_strategies_are_of_several_kinds() -> None:
    rng = np.random.default_rng(0)
    names = Counter(draw_strategy(rng).name for _ in range(400))
    assert set(names) == {"hover-align", "hover-straight", "diagonal-align", "diagonal-straight"}
    assert min(names.values()) > 10


def test_modes_are_drawn_as_often_as_stated() -> None:
    rng = np.random.default_rng(0)
    drawn = Counter(draw_mode(rng) for _ in range(4000))
    assert sum(MODE_PROBABILITIES.values()) == pytest.approx(1.0)
    for mode, probability in MODE_PROBABILITIES.items():
        assert drawn[mode] / 4000 == pytest.approx(probability, abs=0.03)


def test_actions_lie_within_the_bounds(env: PickPlace) -> None:
    _, actions, _, _ = watch(env, 0, Mode.CLEAN)
    PANDA_ACTION.validate(actions)
    assert set(np.unique(actions[:, 6])) == {-1.0, 1.0}


def test_a_demonstration_is_an_episode_of_its_robot(env: PickPlace) -> None:
    episode = demonstrate(env, 5, Mode.CLEAN)
    check_episode(episode, env.robot_spec)
    assert episode.success is True
    assert episode.terminated
    assert not episode.truncated
    assert episode.rewards.tolist() == [0.0] * (len(episode) - 1) + [1.0]
    assert episode.task.instruction == "put the cube on the disc"
    assert episode.info["seed"] == 5
    assert episode.info["mode"] == "clean"
    assert episode.info["retried"] is False


def test_a_demonstration_is_a_function_of_its_seed(env: PickPlace) -> None:
    first = demonstrate(env, 6)
    demonstrate(env, 7)
    again = demonstrate(env, 6)
    np.testing.assert_array_equal(again.actions, first.actions)
    np.testing.assert_array_equal(again.observations["state"], first.observations["state"])
    assert again.info == first.info
