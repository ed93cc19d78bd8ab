"""Bit-identical replays: from a seed, on a fresh client, after other episodes, and from a saved moment."""

from __future__ import annotations

import numpy as np
import pytest

from robots.panda_arm import PANDA_ACTION
from sim.env import PickPlace
from sim.expert import Expert
from sim.expert_modes import Mode, Phase
from steer.errors import ConfigError


def random_actions(seed: int, count: int, gripper: float | None = None) -> np.ndarray:
    actions = np.random.default_rng(seed).uniform(PANDA_ACTION.low, PANDA_ACTION.high, (count, 7)).astype(np.float32)
    if gripper is not None:
        actions[:, 6] = gripper
    return actions


def play(env: PickPlace, actions: np.ndarray) -> np.ndarray:
    return np.stack([env.step(action)[0]["state"] for action in actions])


def expert_episode(env: PickPlace, seed: int) -> np.ndarray:
    state = env.reset(seed=seed)[0]["state"]
    expert = Expert(np.random.default_rng(seed), Mode.CLEAN)
    states, ended = [state], False
    while not ended:
        observation, _, terminated, truncated, _ = env.step(expert.act(states[-1]))
        states.append(observation["state"])
        ended = terminated or truncated
    return np.stack(states)


def test_same_seed_same_episode_after_other_episodes_and_on_a_fresh_client(env: PickPlace) -> None:
    first = expert_episode(env, 7)
    expert_episode(env, 8)
    env.reset(seed=9)
    play(env, random_actions(0, 10))  # and one that is left in the middle
    np.testing.assert_array_equal(expert_episode(env, 7), first)
    fresh = PickPlace()
    np.testing.assert_array_equal(expert_episode(fresh, 7), first)
    fresh.close()


def test_images_change_nothing_in_the_physics(env: PickPlace) -> None:
    seeing = PickPlace(images=("front",), image_size=16)
    env.reset(seed=5)
    seeing.reset(seed=5)
    actions = random_actions(1, 10)
    np.testing.assert_array_equal(play(seeing, actions), play(env, actions))
    seeing.close()


def test_two_environments_at_once_do_not_touch_each_other(env: PickPlace) -> None:
    actions = random_actions(2, 10)
    env.reset(seed=1)
    alone = play(env, actions)
    other = PickPlace()
    env.reset(seed=1)
    other.reset(seed=2)
    together = []
    for action in actions:
        other.step(-action)
        together.append(env.step(action)[0]["state"])
    np.testing.assert_array_equal(np.stack(together), alone)
    other.close()


def test_different_seeds_start_differently(env: PickPlace) -> None:
    assert not np.array_equal(env.reset(seed=1)[0]["state"], env.reset(seed=2)[0]["state"])


def advance_to(env: PickPlace, phase: Phase, ticks: int) -> np.ndarray:
    """Run a clean expert until some ticks into a phase; returns the state there."""
    state = env.reset(seed=11)[0]["state"]
    expert = Expert(np.random.default_rng(11), Mode.CLEAN)
    inside = 0
    while inside < ticks:
        state = env.step(expert.act(state))[0]["state"]
        inside += expert.phase is phase
    return state


@pytest.mark.parametrize("phase", [Phase.APPROACH, Phase.CLOSE, Phase.TRANSPORT])
def test_restored_moment_continues_bit_for_bit(env: PickPlace, phase: Phase) -> None:
    state = advance_to(env, phase, ticks=3)
    closed = -1.0 if phase is Phase.TRANSPORT else None
    actions = random_actions(3, 30, closed)
    with env.save() as moment:
        first = play(env, actions)
        env.restore(moment)
        np.testing.assert_array_equal(env.observe()["state"], state)  # not stale
        np.testing.assert_array_equal(play(env, actions), first)
        env.reset(seed=99)  # another episode, another goal
        np.testing.assert_array_equal(env.restore(moment)["state"], state)
        np.testing.assert_array_equal(play(env, actions), first)
    if phase is Phase.TRANSPORT:
        assert state[9] > 0.04, "the cube was meant to be in the grip"


def test_restore_brings_back_tick_end_and_random_numbers(env: PickPlace) -> None:
    short = PickPlace(horizon=4)
    short.reset(seed=0)
    short.step(random_actions(0, 1)[0])
    moment = short.save()
    drawn = short.np_random.random(3)
    for action in random_actions(1, 3):
        *_, truncated, _ = short.step(action)
    assert truncated
    short.restore(moment)
    np.testing.assert_array_equal(short.np_random.random(3), drawn)
    ends = [short.step(action)[3] for action in random_actions(1, 3)]
    assert ends == [False, False, True]
    moment.release()
    short.close()


def test_released_and_foreign_moments_are_refused(env: PickPlace) -> None:
    env.reset(seed=0)
    moment = env.save()
    other = PickPlace()
    with pytest.raises(ConfigError, match="saved by another environment"):
        other.restore(moment)
    moment.release()
    moment.release()
    with pytest.raises(ConfigError, match="released"):
        env.restore(moment)
    other.close()


def test_release_after_close_does_nothing() -> None:
    env = PickPlace()
    env.reset(seed=0)
    moment = env.save()
    env.close()
    moment.release()
