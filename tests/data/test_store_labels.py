"""Labels that come later: the last word holds, whoever says it, and segments stay as they are."""

from __future__ import annotations

import errno
import os

import pytest
from store_toys import make_episode

from steer.data import EpisodeStore, load_frames
from steer.errors import SpecError, StoreError


@pytest.fixture
def labelled(store: EpisodeStore) -> EpisodeStore:
    with store.writer() as writer:
        writer.add(make_episode(2, success=False, success_source="simulator"))
        writer.add(make_episode(2))
    store.refresh()
    return store


def test_the_last_label_holds_and_says_who(labelled: EpisodeStore) -> None:
    first, second = (record.id for record in labelled.records())
    labelled.label(first, True, "key")
    labelled.label(second, False, "classifier")
    labelled.label(second, True, "key")
    for store in (labelled, EpisodeStore.open(labelled.path)):
        records = store.records()
        assert [(r.success, r.success_source, r.label_version) for r in records] == [(True, "key", 1), (True, "key", 3)]
        assert store.episode(0).success is True
        assert store.episode(0).success_source == "key"
        assert load_frames(store).success.tolist() == [True, True]


def test_a_label_rewards_where_it_says_otherwise(labelled: EpisodeStore) -> None:
    failed, unlabelled = (record.id for record in labelled.records())

    def rewards() -> list[list[float]]:
        frames = load_frames(labelled)
        return [frames.rewards[frames.rows([e])].tolist() for e in (0, 1)]

    recorded = rewards()
    assert recorded[0] != [0, 1, 0]
    labelled.label_many({failed: True, unlabelled: False}, "key")
    assert rewards() == [[0, 1, 0], [0, 0, 0]]
    assert load_frames(labelled).terminated.tolist() == [True, False]
    labelled.label_many({failed: False, unlabelled: True}, "key")
    assert rewards() == [recorded[0], [0, 1, 0]]
    assert [record.corrected for record in labelled.records()] == [False, True]


def test_a_reader_sees_new_labels_after_refresh(labelled: EpisodeStore) -> None:
    reader = EpisodeStore.open(labelled.path)
    labelled.label(labelled.records()[1].id, True, "key")
    assert reader.records()[1].success is None
    reader.refresh()
    assert reader.records()[1].success is True


def test_a_label_needs_an_episode_and_a_source(labelled: EpisodeStore) -> None:
    with pytest.raises(StoreError, match="999999-000/0"):
        labelled.label("999999-000/0", True, "key")
    with pytest.raises(SpecError, match="source"):
        labelled.label(labelled.records()[0].id, True, "")


def test_a_torn_last_line_was_never_said(labelled: EpisodeStore) -> None:
    labelled.label(labelled.records()[0].id, True, "key")
    path = labelled.path / "labels.jsonl"
    path.write_bytes(path.read_bytes() + b'{"id": "000000-000/1", "succ')
    assert EpisodeStore.open(labelled.path).records()[1].success is None
    labelled.label(labelled.records()[1].id, False, "key")
    assert [r.success for r in EpisodeStore.open(labelled.path).records()] == [True, False]


def test_a_damaged_line_is_named(labelled: EpisodeStore) -> None:
    (labelled.path / "labels.jsonl").write_bytes(b"no label\n")
    with pytest.raises(StoreError, match="line 1"):
        EpisodeStore.open(labelled.path)


def test_a_full_disk_leaves_the_labels_as_they_were(labelled: EpisodeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    labelled.label(labelled.records()[0].id, True, "key")
    before = (labelled.path / "labels.jsonl").read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        labelled.label(labelled.records()[1].id, True, "key")
    assert (labelled.path / "labels.jsonl").read_bytes() == before


def test_many_labels_at_once_are_as_one_by_one_and_none_is_written_where_one_is_wrong(labelled: EpisodeStore) -> None:
    first, second = (record.id for record in labelled.records())
    with pytest.raises(StoreError, match="999999-000/0"):
        labelled.label_many({first: True, "999999-000/0": True}, "video")
    assert not (labelled.path / "labels.jsonl").exists()
    labelled.label_many({first: True, second: False}, "video")
    labelled.label(first, False, "key")
    for store in (labelled, EpisodeStore.open(labelled.path)):
        said = [(r.success, r.success_source, r.label_version) for r in store.records()]
        assert said == [(False, "key", 3), (False, "video", 2)]
