"""What is written is what is read; what does not fit is refused and takes nothing with it."""

from __future__ import annotations

import json
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_toys import CAMERA_ROBOT, ROBOT, make_episode

import steer.data.writer
from steer.data import Episode, EpisodeStore
from steer.errors import SpecError, StoreError
from steer.observation import ObservationSpec, Task
from steer.spec import ArraySpec


def assert_same(read: Episode, written: Episode) -> None:
    for name in ("terminated", "truncated", "success", "success_source", "source"):
        assert getattr(read, name) == getattr(written, name), name
    assert dict(read.info) == dict(written.info)
    assert read.task.instruction == written.task.instruction
    for mine, theirs in ((read.observations, written.observations), (read.steps, written.steps)):
        assert mine.keys() == theirs.keys()
        for key in mine:
            np.testing.assert_array_equal(mine[key], theirs[key], strict=True)
    np.testing.assert_array_equal(read.actions, written.actions, strict=True)
    np.testing.assert_array_equal(read.rewards, written.rewards, strict=True)


@st.composite
def episodes(draw: st.DrawFn) -> Episode:
    length = draw(st.integers(1, 7))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    observations = {s.name: s.generate(rng, (length + 1,)) for s in CAMERA_ROBOT.observation.arrays}
    return Episode(
        observations=observations,
        actions=rng.uniform(-1, 1, (length, 2)).astype(np.float32),
        rewards=rng.normal(size=length).astype(np.float32),
        terminated=draw(st.booleans()),
        truncated=draw(st.booleans()),
        success=draw(st.sampled_from([True, False, None])),
        success_source=draw(st.sampled_from(["", "simulator", "key"])),
        task=Task(draw(st.text(max_size=8))),
        source=draw(st.sampled_from(["expert", "policy"])),
        steps={"value": np.full(length, np.nan, np.float32), "chunk_start": rng.integers(0, 2, length) == 1},
        info={"seed": draw(st.integers()), "mode": draw(st.text(max_size=5))},
    )


@settings(max_examples=12, deadline=None)
@given(written=st.lists(episodes(), min_size=1, max_size=5), per_segment=st.integers(1, 3))
def test_every_episode_comes_back_as_it_was(written: list[Episode], per_segment: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = EpisodeStore.create(Path(folder) / "store", CAMERA_ROBOT)
        with store.writer(per_segment) as writer:
            for episode in written:
                writer.add(episode)
        again = EpisodeStore.open(store.path)
        assert again.robot == CAMERA_ROBOT
        assert [record.length for record in again.records()] == [len(episode) for episode in written]
        assert [record.id for record in again.records()] == writer.acknowledged
        for index, episode in enumerate(written):
            assert_same(again.episode(index), episode)
        for read, episode in zip(again.episodes(), written, strict=True):
            assert_same(read, episode)


def test_a_goal_image_belongs_to_its_episode(store: EpisodeStore) -> None:
    goal = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    with store.writer() as writer:
        writer.add(make_episode(2, task=Task("push")))
        writer.add(make_episode(2, task=Task("reach", goal)))
    store.refresh()
    assert store.episode(0).task == Task("push")
    np.testing.assert_array_equal(store.episode(1).task.goal_image, goal)


def test_nothing_is_seen_before_it_is_published_and_indices_stay_valid(store: EpisodeStore) -> None:
    reader = EpisodeStore.open(store.path)
    with store.writer() as writer:
        writer.add(make_episode(2, value=1))
        assert (reader.refresh(), len(reader), writer.buffered) == (0, 0, 1)
        assert writer.flush() == ("000000-000/0",)
        assert (reader.refresh(), len(reader), writer.buffered) == (1, 1, 0)
        writer.add(make_episode(3, value=2))
    assert reader.refresh() == 1
    assert [reader.episode(i).observations["state"][0, 0] for i in (0, 1)] == [1, 2]
    assert reader.refresh() == 0


def test_a_single_writer_names_its_segments_the_same_every_time(tmp_path: Path) -> None:
    names = []
    for run in ("a", "b"):
        store = EpisodeStore.create(tmp_path / run, ROBOT)
        for _ in range(2):
            with store.writer(2) as writer:
                for value in range(3):
                    writer.add(make_episode(2, value))
        store.refresh()
        names.append([segment.name for segment in store.segments])
    assert names[0] == names[1] == ["000000-000", "000001-000", "000002-000", "000003-000"]


def test_large_episodes_make_smaller_segments(store: EpisodeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steer.data.writer, "SEGMENT_BYTES", 200)
    with store.writer() as writer:
        for length in (2, 2, 9):
            writer.add(make_episode(length))
        assert (writer.buffered, len(writer.acknowledged)) == (0, 3)
    store.refresh()
    assert [len(segment.records) for segment in store.segments] == [3]


def test_two_open_writers_use_different_names(store: EpisodeStore) -> None:
    with store.writer() as one, store.writer() as two:
        one.add(make_episode(1, 1))
        two.add(make_episode(1, 2))
        assert one.flush() == ("000000-000/0",)
        assert two.flush() == ("000001-001/0",)
    assert store.refresh() == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"actions": np.zeros((2, 3), np.float32)}, "A=2"),
        ({"actions": np.zeros((2, 2))}, "float64"),
        ({"actions": np.full((2, 2), np.nan, np.float32)}, "not finite"),
        ({"actions": np.full((2, 2), 1.5, np.float32)}, "dx"),
        ({"actions": np.zeros((0, 2), np.float32), "rewards": np.zeros(0, np.float32)}, "N of 1 or more"),
        ({"rewards": np.zeros(3, np.float32)}, r"float32 \(2,\)"),
        ({"rewards": np.array([0, np.inf], np.float32)}, "step 1 is not finite"),
        ({"observations": {}}, "'state'] missing"),
        ({"observations": {"state": np.zeros((3, 3), np.float32), "more": np.zeros(3)}}, "more"),
        ({"observations": {"state": np.zeros((2, 3), np.float32)}}, "expected 3"),
        ({"observations": {"state": np.zeros((3, 4), np.float32)}}, "state: got shape"),
        ({"observations": {"state": np.zeros((3, 3))}}, "float64"),
        ({"observations": {"state": np.array([[0, 0, np.nan]] * 3, np.float32)}}, "ee.z = nan"),
        ({"steps": {"value": np.zeros(3)}}, "value"),
        ({"steps": {"value": np.array([None, None])}}, "object"),
        ({"steps": {"../value": np.zeros(2)}}, "cannot be stored"),
        ({"success": 1}, "success: got int"),
        ({"terminated": np.bool_(True)}, "terminated"),
        ({"info": {"rng": object()}}, "info"),
        ({"info": {"x": float("nan")}}, "info"),
        ({"task": Task("", np.zeros((2, 2), np.uint8))}, "goal_image"),
    ],
)
def test_what_does_not_fit_is_refused_and_the_buffer_kept(
    store: EpisodeStore, change: dict[str, Any], message: str
) -> None:
    with store.writer() as writer:
        writer.add(make_episode(2, value=7))
        with pytest.raises(SpecError, match=message):
            writer.add(replace(make_episode(2), **change))
        writer.add(make_episode(2, value=8))
    assert store.refresh() == 2
    assert [e.observations["state"][0, 0] for e in store.episodes()] == [7, 8]


def test_episodes_of_another_layout_need_another_writer(store: EpisodeStore) -> None:
    with store.writer() as writer:
        writer.add(make_episode(2))
        with pytest.raises(SpecError, match="steps/value"):
            writer.add(make_episode(2, steps={"value": np.zeros(2)}))
    with store.writer() as writer:
        writer.add(make_episode(2, steps={"value": np.zeros(2)}))
    assert store.refresh() == 2


def test_leaving_the_block_with_an_error_keeps_whole_episodes(store: EpisodeStore) -> None:
    def record() -> None:
        with store.writer() as writer:
            writer.add(make_episode(2))
            raise KeyError("the robot fell over")

    with pytest.raises(KeyError):
        record()
    assert store.refresh() == 1


def test_a_closed_writer_says_so(store: EpisodeStore) -> None:
    writer = store.writer()
    writer.close()
    with pytest.raises(StoreError, match="closed"):
        writer.add(make_episode(1))


def test_create_opens_only_the_same_robot(store: EpisodeStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="already"):
        EpisodeStore.create(store.path, ROBOT)
    assert EpisodeStore.create(store.path, ROBOT, exist_ok=True).robot == ROBOT
    with pytest.raises(SpecError, match="observation"):
        EpisodeStore.create(store.path, CAMERA_ROBOT, exist_ok=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    with pytest.raises(StoreError, match="neither empty"):
        EpisodeStore.create(tmp_path / "full", ROBOT)


def test_create_goes_on_from_what_a_killed_one_left(tmp_path: Path) -> None:
    (tmp_path / "segments").mkdir()
    (tmp_path / ".store.0a1b2c3d").write_text("{")
    with EpisodeStore.create(tmp_path, ROBOT).writer() as writer:
        writer.add(make_episode(1))
    assert len(EpisodeStore.open(tmp_path)) == 1


def test_segments_without_a_store_are_somebody_elses(tmp_path: Path) -> None:
    (tmp_path / "segments" / "letters").mkdir(parents=True)
    with pytest.raises(StoreError, match="neither empty"):
        EpisodeStore.create(tmp_path, ROBOT)


def test_many_may_create_one_store_at_once(tmp_path: Path) -> None:
    count, rounds = 8, 10
    together = threading.Barrier(count)

    def create_all(_: int) -> None:
        for number in range(rounds):
            together.wait(60)
            with EpisodeStore.create(tmp_path / str(number), ROBOT, exist_ok=True).writer() as writer:
                writer.add(make_episode(1))

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(create_all, range(count)))
    assert [len(EpisodeStore.open(tmp_path / str(number))) for number in range(rounds)] == [count] * rounds


def test_open_explains_what_is_not_a_store(store: EpisodeStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no store\.json"):
        EpisodeStore.open(tmp_path / "nowhere")
    content = json.loads((store.path / "store.json").read_text())
    (store.path / "store.json").write_text(json.dumps(content | {"format": 99}))
    with pytest.raises(StoreError, match="format 99"):
        EpisodeStore.open(store.path)
    (store.path / "store.json").write_text("{")
    with pytest.raises(StoreError, match="cannot be read"):
        EpisodeStore.open(store.path)
    content["robot"]["colour"] = "red"
    (store.path / "store.json").write_text(json.dumps(content))
    with pytest.raises(SpecError, match="colour"):
        EpisodeStore.open(store.path)


def test_an_index_out_of_range_names_the_size(store: EpisodeStore) -> None:
    with pytest.raises(StoreError, match="the store has 0"):
        store.episode(0)


def test_images_of_any_size_keep_their_shape_within_a_writer(tmp_path: Path) -> None:
    robot = replace(ROBOT, observation=ObservationSpec((ArraySpec("camera", "uint8", (-1, -1, 3)),)))
    store = EpisodeStore.create(tmp_path / "any", robot)
    small, large = (replace(make_episode(1), observations={"camera": np.zeros((2, n, n, 3), np.uint8)}) for n in (2, 4))
    with store.writer() as writer:
        writer.add(small)
        with pytest.raises(SpecError, match="camera"):
            writer.add(large)
