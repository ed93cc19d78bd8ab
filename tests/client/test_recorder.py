"""The recorder: steps become episodes in a store, on a thread of their own, within bounds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
from structlog.testing import capture_logs

from steer.client.recorder import EPISODES_PER_SEGMENT, End, Recorder, Step
from steer.data.store import EpisodeStore
from steer.data.trace import Choice
from steer.data.writer import EpisodeWriter
from steer.errors import StoreError
from steer.observation import Task
from steer.robot import Frame
from tests.fakes import ROBOT

EPISODE_INFO = {
    "episode": 1,
    "origins": ["policy"],
    "intervention_steps": 0,
    "policy_version": "p1",
    "critic_version": "c1",
}


def frame(tick: int) -> Frame:
    return Frame({"state": np.full(3, tick, np.float32)}, float(tick))


def step(tick: int, held: bool = False, intervention: bool = False) -> Step:
    sent = np.full(3, 0.01 * tick, np.float32)
    choice = None if held or intervention else Choice(2 * sent, sent, 0.5, 0, 9, 3, "policy", tick == 1, "p1", "c1")
    return Step(frame(tick), sent, choice, intervention, float(tick))


def end(tick: int) -> End:
    return End(frame(tick), True, False, True, "simulator", Task("reach"), {"episode": 1})


def record(recorder: Recorder) -> None:
    recorder.step(step(0))
    recorder.end(end(1))


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_steps_become_an_episode(tmp_path: Path) -> None:
    store = EpisodeStore.create(tmp_path / "store", ROBOT)
    with Recorder(store) as recorder:
        for tick in range(3):
            recorder.step(step(tick, held=tick == 0))
        recorder.end(end(3))
    assert store.refresh() == 1
    episode = store.episode(0)
    np.testing.assert_array_equal(episode.observations["state"][:, 0], [0, 1, 2, 3])
    np.testing.assert_allclose(episode.actions[:, 0], [0, 0.01, 0.02])
    np.testing.assert_allclose(episode.steps["proposed"][:, 0], [np.nan, 0.02, 0.04])
    np.testing.assert_array_equal(episode.steps["held"], [True, False, False])
    np.testing.assert_allclose(episode.steps["scored"][:, 0], [np.nan, 0.01, 0.02])
    np.testing.assert_array_equal(episode.steps["chunk_start"], [False, True, False])
    np.testing.assert_array_equal(episode.rewards, [0, 1, 2])
    assert (episode.terminated, episode.success, episode.success_source) == (True, True, "simulator")
    assert (episode.source, episode.task, episode.info) == ("policy", Task("reach"), EPISODE_INFO)


def test_an_episode_without_an_end_is_not_written(tmp_path: Path) -> None:
    store = EpisodeStore.create(tmp_path / "store", ROBOT)
    with Recorder(store) as recorder:
        recorder.step(step(0))
    assert store.refresh() == 0


def test_what_is_complete_is_published_when_the_loop_falls_silent(tmp_path: Path) -> None:
    store = EpisodeStore.create(tmp_path / "store", ROBOT)
    with patch("steer.client.recorder.IDLE_S", 0.01), Recorder(store) as recorder:
        record(recorder)
        wait_until(lambda: recorder.counts["episodes"] == 1)
        assert store.refresh() == 1


def test_a_segment_holds_many_episodes(tmp_path: Path) -> None:
    store = EpisodeStore.create(tmp_path / "store", ROBOT)
    with Recorder(store) as recorder:
        for _ in range(EPISODES_PER_SEGMENT + 1):
            record(recorder)
    store.refresh()
    assert [len(segment.records) for segment in store.segments] == [EPISODES_PER_SEGMENT, 1]


def test_nothing_waits_longer_than_its_time_while_the_loop_goes_on(tmp_path: Path) -> None:
    store = EpisodeStore.create(tmp_path / "store", ROBOT)
    with patch("steer.client.recorder.PUBLISH_AFTER_S", 0.0), Recorder(store) as recorder:
        record(recorder)
        recorder.step(step(0))
        wait_until(lambda: recorder.counts["episodes"] == 1)


def test_frames_that_change_their_shape_cost_their_episode_and_not_the_run(tmp_path: Path) -> None:
    store = EpisodeStore.create(tmp_path / "store", ROBOT)
    with Recorder(store) as recorder:
        recorder.step(step(0))
        recorder.end(replace(end(1), frame=Frame({"state": np.zeros(4, np.float32)}, 1.0)))
        record(recorder)
    assert (recorder.counts["failed"], recorder.counts["episodes"]) == (1, 1)
    assert store.refresh() == 1


def test_an_episode_that_is_too_long_for_memory_is_given_up_aloud_and_the_next_is_kept(tmp_path: Path) -> None:
    store = EpisodeStore.create(tmp_path / "store", ROBOT)
    image = Frame({"state": np.zeros(3, np.float32), "camera": np.zeros((100, 100), np.uint8)}, 0.0)
    with Recorder(store, max_bytes=3 * step(0).size + 30_000) as recorder, capture_logs() as logs:
        for _ in range(2):
            for tick in range(5):
                recorder.step(replace(step(tick), frame=image))
            recorder.end(end(5))
            wait_until(lambda: recorder._held == 0)
        record(recorder)
    said = [line for line in logs if line["log_level"] == "error"]
    assert len(said) == 2
    assert "--episode-s" in said[0]["advice"]
    assert recorder.counts == {"episodes": 1, "incomplete": 2, "dropped": 4}
    assert store.refresh() == 1


def test_a_slow_disk_costs_whole_episodes_never_the_callers_time(tmp_path: Path) -> None:
    store = EpisodeStore.create(tmp_path / "store", ROBOT)
    writing, go_on = threading.Event(), threading.Event()
    add = EpisodeWriter.add

    def slow_add(self: EpisodeWriter, episode: object) -> None:
        writing.set()
        go_on.wait(10)
        add(self, episode)  # type: ignore[arg-type]

    with patch.object(EpisodeWriter, "add", slow_add), Recorder(store, max_bytes=5 * step(0).size) as recorder:
        recorder.step(step(0))
        recorder.end(end(1))
        assert writing.wait(10)
        for tick in range(6):  # there is room for four
            recorder.step(step(tick))
        recorder.end(end(6))
        go_on.set()
    assert recorder.counts["dropped"] == 2
    assert recorder.counts["incomplete"] == 1
    assert store.refresh() == 1


def test_a_failing_disk_is_counted_and_later_episodes_are_still_written(tmp_path: Path) -> None:
    store = EpisodeStore.create(tmp_path / "store", ROBOT)
    add, calls = EpisodeWriter.add, []

    def failing_once(self: EpisodeWriter, episode: object) -> None:
        calls.append(episode)
        if len(calls) == 1:
            raise StoreError("no space left")
        add(self, episode)  # type: ignore[arg-type]

    with patch.object(EpisodeWriter, "add", failing_once), Recorder(store) as recorder:
        for _ in range(2):
            recorder.step(step(0))
            recorder.end(end(1))
    assert (recorder.counts["failed"], recorder.counts["episodes"]) == (1, 1)
    assert store.refresh() == 1


def test_memory_is_bounded_while_the_disk_takes_nothing(tmp_path: Path) -> None:
    store = EpisodeStore.create(tmp_path / "store", ROBOT)
    with Recorder(store, max_bytes=3 * step(0).size) as recorder:
        with patch.object(EpisodeWriter, "flush", side_effect=StoreError("no space left")):
            for _ in range(5):
                record(recorder)
        assert recorder.counts["incomplete"] == 2
    assert recorder.counts["episodes"] == 3
    assert store.refresh() == 3


def test_long_episodes_are_written_when_together_they_are_too_many_for_memory(tmp_path: Path) -> None:
    store = EpisodeStore.create(tmp_path / "store", ROBOT)
    with Recorder(store, max_bytes=3 * step(0).size) as recorder:
        for number in range(3):
            recorder.step(step(0))
            recorder.step(step(1))
            recorder.end(end(2))
            wait_until(lambda: recorder.counts["episodes"] == number + 1)  # noqa: B023 - called at once
    assert recorder.counts["incomplete"] == 0
