"""What the server does with segments that others send: each whole, once, and only what belongs into a store."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steer.data.origin import SegmentId, store_identity
from steer.data.parcel import SegmentFile, check_files, list_files
from steer.data.store import EpisodeStore
from steer.data.writer import EpisodeWriter
from steer.errors import SessionError, SpecError, SteerError, StoreError
from steer.server.incoming import GivenLabel, Incoming, differences
from tests.experience import recorded, segment_id, values
from tests.fakes import ROBOT

HASH = bytes(32)


@pytest.fixture
def robot_store(tmp_path: Path) -> EpisodeStore:
    return recorded(tmp_path / "robot", [1.0, 2.0])


@pytest.fixture
def server_store(tmp_path: Path) -> Path:
    return tmp_path / "server"


@pytest.fixture
def incoming(server_store: Path, robot_store: EpisodeStore) -> Iterator[Incoming]:
    made = Incoming(server_store)
    made.join(ROBOT, store_identity(robot_store.path))
    yield made
    made.close()


def folder_of(store: EpisodeStore, place: int = 0) -> Path:
    return store.path / "segments" / store.segments[place].name


def parts_of(folder: Path, files: tuple[SegmentFile, ...], held: tuple[int, ...] = ()) -> list[tuple[str, int, bytes]]:
    """Everything that is missing, one part per file."""
    starts = held or (0,) * len(files)
    return [(f.path, at, (folder / f.path).read_bytes()[at:]) for f, at in zip(files, starts, strict=True)]


def send(incoming: Incoming, store: EpisodeStore, place: int = 0) -> str:
    segment, folder = segment_id(store, place), folder_of(store, place)
    files = list_files(folder)
    offered = incoming.offer(ROBOT, segment, files)
    if offered.published:
        return offered.published
    incoming.write(segment, parts_of(folder, files, offered.held))
    return incoming.publish(segment)


def test_a_segment_arrives_as_it_was_sent(incoming: Incoming, robot_store: EpisodeStore, server_store: Path) -> None:
    assert send(incoming, robot_store, 0) == "000000-000"
    assert send(incoming, robot_store, 1) == "000001-000"
    assert values(server_store) == [1.0, 2.0]
    ours = folder_of(robot_store)
    theirs = server_store / "segments" / "000000-000"
    assert list_files(theirs) == list_files(ours)
    assert list((server_store / "incoming").iterdir()) == [server_store / "incoming" / "lock"]


def test_a_segment_is_invisible_until_it_is_published(
    incoming: Incoming, robot_store: EpisodeStore, server_store: Path
) -> None:
    segment, folder = segment_id(robot_store), folder_of(robot_store)
    files = list_files(folder)
    incoming.offer(ROBOT, segment, files)
    reader = EpisodeStore.open(server_store)
    for part in parts_of(folder, files):
        incoming.write(segment, [part])
        assert reader.refresh() == 0
    incoming.publish(segment)
    assert reader.refresh() == 1


def test_sending_again_changes_nothing(incoming: Incoming, robot_store: EpisodeStore, server_store: Path) -> None:
    first = send(incoming, robot_store)
    assert send(incoming, robot_store) == first
    assert incoming.publish(segment_id(robot_store)) == first
    assert values(server_store) == [1.0]


def test_a_restarted_server_knows_what_it_has(
    incoming: Incoming, robot_store: EpisodeStore, server_store: Path
) -> None:
    name = send(incoming, robot_store)
    incoming.close()
    again = Incoming(server_store)
    assert again.offer(ROBOT, segment_id(robot_store), list_files(folder_of(robot_store))).published == name
    again.close()


def test_the_same_name_from_two_robots_is_two_segments(
    incoming: Incoming, robot_store: EpisodeStore, server_store: Path, tmp_path: Path
) -> None:
    other = recorded(tmp_path / "other", [7.0])
    assert segment_id(other).segment == segment_id(robot_store).segment
    assert {send(incoming, robot_store), send(incoming, other)} == {"000000-000", "000001-000"}
    assert values(server_store) == [1.0, 7.0]


def test_the_same_segment_with_other_content_is_refused(
    incoming: Incoming, robot_store: EpisodeStore, server_store: Path
) -> None:
    send(incoming, robot_store)
    files = list_files(folder_of(robot_store))
    changed = (replace(files[0], sha256=HASH), *files[1:])
    with pytest.raises(SpecError, match=r"is here as 000000-000 with other content.*record to a new store"):
        incoming.offer(ROBOT, segment_id(robot_store), changed)
    assert values(server_store) == [1.0]


@pytest.fixture(scope="module")
def one_segment(tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    return recorded(tmp_path_factory.mktemp("robot") / "store", [3.0], length=2)


@settings(max_examples=12, deadline=None)
@given(cut=st.integers(0, 10**6), restart=st.booleans())
def test_a_broken_transfer_goes_on_at_the_byte_it_had(
    cut: int, restart: bool, one_segment: EpisodeStore, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tmp_path, store = tmp_path_factory.mktemp("broken"), one_segment
    segment, folder = segment_id(store), folder_of(store)
    files = list_files(folder)
    incoming = Incoming(tmp_path / "server")
    incoming.join(ROBOT, segment.store)
    incoming.offer(ROBOT, segment, files)
    cut %= sum(file.size for file in files)
    sent = 0
    for path, at, data in parts_of(folder, files):
        incoming.write(segment, [(path, at, data[: cut - sent])])
        sent += len(data[: cut - sent])
        if sent == cut:
            break
    if restart:
        incoming.close()
        incoming = Incoming(tmp_path / "server")
    held = incoming.offer(ROBOT, segment, files).held
    assert sum(held) == cut
    incoming.write(segment, [part for part in parts_of(folder, files, held) if part[2]])
    incoming.publish(segment)
    incoming.close()
    assert values(tmp_path / "server") == [3.0]


def test_bytes_that_changed_on_the_way_are_asked_for_again(
    incoming: Incoming, robot_store: EpisodeStore, server_store: Path
) -> None:
    segment, folder = segment_id(robot_store), folder_of(robot_store)
    files = list_files(folder)
    incoming.offer(ROBOT, segment, files)
    (path, at, data), *rest = parts_of(folder, files)
    incoming.write(segment, [(path, at, bytes(len(data))), *rest])
    with pytest.raises(StoreError, match=rf"{path} is not what was offered"):
        incoming.publish(segment)
    held = incoming.offer(ROBOT, segment, files).held
    assert held == (0, *(file.size for file in files[1:]))
    incoming.write(segment, [(path, 0, data)])
    incoming.publish(segment)
    assert values(server_store) == [1.0]


def test_the_sender_is_told_where_it_is_mistaken(incoming: Incoming, robot_store: EpisodeStore) -> None:
    segment, folder = segment_id(robot_store), folder_of(robot_store)
    files = list_files(folder)
    with pytest.raises(SessionError, match="offer it again"):
        incoming.write(segment, [(files[0].path, 0, b"x")])
    incoming.offer(ROBOT, segment, files)
    with pytest.raises(SessionError, match="0 bytes are here, the sender goes on at 5"):
        incoming.write(segment, [(files[0].path, 5, b"x")])
    with pytest.raises(SpecError, match="not of what was offered"):
        incoming.write(segment, [(files[0].path, 0, bytes(files[0].size + 1))])
    with pytest.raises(SpecError, match="not of what was offered"):
        incoming.write(segment, [("actions/c/9/9", 0, b"x")])
    with pytest.raises(SessionError, match="not complete"):
        incoming.publish(segment)


@pytest.mark.parametrize(
    "path",
    [
        "../../escape",
        "/etc/passwd",
        "actions/../../../x",
        "observations/../zarr.json",
        "observations/a/b/zarr.json",
        "origin.json",
        "zarr.json/",
        "actions/c/0/x",
        "steps/.hidden/c/0",
        "actions\\c\\0",
        "observations/state/c/0\n",
        "",
    ],
)
def test_paths_that_are_of_no_segment_are_refused(path: str) -> None:
    with pytest.raises(SpecError, match="do not belong into a segment"):
        check_files((SegmentFile("manifest.json", 1, HASH), SegmentFile(path, 1, HASH)), 100)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([("manifest.json", 1), ("manifest.json", 1)], "each once"),
        ([("zarr.json", 1)], "manifest.json among them"),
        ([("manifest.json", 60), ("zarr.json", 60)], "120 bytes and the server takes 100"),
        ([("manifest.json", 1), ("actions/c/0", 1), ("actions/c/0/0", 1)], "a folder of another"),
        ([("manifest.json", 1), ("zarr.json", 0)], "at least one byte"),
    ],
)
def test_lists_that_are_of_no_segment_are_refused(files: list[tuple[str, int]], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        check_files([SegmentFile(path, size, HASH) for path, size in files], 100)


@pytest.mark.parametrize(
    "name", [("0" * 31, "000000-000"), ("../" + "0" * 29, "000000-000"), ("0" * 32, "../000000-000")]
)
def test_names_that_are_of_no_segment_are_refused(name: tuple[str, str]) -> None:
    with pytest.raises(SpecError, match="expected"):
        SegmentId(*name)


def test_a_damaged_segment_is_refused_and_forgotten(
    incoming: Incoming, robot_store: EpisodeStore, server_store: Path
) -> None:
    path = folder_of(robot_store) / "observations/state/c/0/0"
    content = bytearray(path.read_bytes())
    content[-1] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(SpecError, match="the segment is damaged"):
        send(incoming, robot_store)
    assert not (server_store / "incoming" / str(segment_id(robot_store))).exists()
    assert values(server_store) == []


def test_a_segment_of_another_robot_is_refused(
    incoming: Incoming, server_store: Path, robot_store: EpisodeStore, tmp_path: Path
) -> None:
    limited = replace(ROBOT, action=replace(ROBOT.action, axes=tuple(replace(a, high=1.0) for a in ROBOT.action.axes)))
    other = EpisodeStore.create(tmp_path / "other", limited)
    with other.writer() as writer:
        writer.add(replace(next(robot_store.episodes()), actions=np.full((3, 3), 0.5, np.float32)))
    other.refresh()
    with pytest.raises(SpecError, match=r"robot\.action\.axes\[0\]\.high: 1\.0 against 0\.1"):
        incoming.offer(limited, segment_id(other), list_files(folder_of(other)))
    with pytest.raises(SpecError, match=r"none of robot 'fake arm' \(actions: axis 'dx' = 0\.5 m"):
        send(incoming, other)
    assert values(server_store) == []


def test_every_difference_between_robots_is_named() -> None:
    assert differences({"a": 1, "b": [1, {"c": 2}]}, {"a": 2, "b": [1, {"c": 3}]}) == [
        "robot.a: 1 against 2",
        "robot.b[1].c: 2 against 3",
    ]
    assert differences({"a": [1]}, {"a": [1, 2], "b": None}) == ["robot.a: [1] against [1, 2]"]


def test_a_store_is_not_sent_to_itself(incoming: Incoming, server_store: Path) -> None:
    with pytest.raises(SpecError, match="the server's own store"):
        incoming.join(ROBOT, store_identity(server_store))


def test_transfers_are_bounded_and_old_ones_are_swept(server_store: Path, robot_store: EpisodeStore) -> None:
    incoming = Incoming(server_store, max_partials=1, keep_s=100.0)
    incoming.join(ROBOT, store_identity(robot_store.path))
    first, second = segment_id(robot_store, 0), segment_id(robot_store, 1)
    files = list_files(folder_of(robot_store, 1))
    incoming.offer(ROBOT, first, list_files(folder_of(robot_store, 0)))
    incoming.offer(ROBOT, first, list_files(folder_of(robot_store, 0)))
    with pytest.raises(StoreError, match="1 segments are on their way"):
        incoming.offer(ROBOT, second, files)
    os.utime(server_store / "incoming" / str(first) / "offer.json", (0, 0))
    incoming.offer(ROBOT, second, files)
    with pytest.raises(SessionError):
        incoming.publish(first)
    os.utime(server_store / "incoming" / str(second) / "offer.json", (0, 0))
    incoming.close()
    Incoming(server_store, keep_s=100.0).close()
    assert [path.name for path in (server_store / "incoming").iterdir()] == ["lock"]


def test_a_server_killed_before_it_wrote_down_an_offer_starts_again(
    incoming: Incoming, server_store: Path, robot_store: EpisodeStore
) -> None:
    transfer = server_store / "incoming" / str(segment_id(robot_store))
    incoming.close()
    transfer.mkdir()
    again = Incoming(server_store)
    assert not transfer.exists()
    assert send(again, robot_store) == "000000-000"
    again.close()


def test_a_server_killed_after_the_rename_leaves_no_transfer_behind(
    incoming: Incoming, server_store: Path, robot_store: EpisodeStore
) -> None:
    transfer = server_store / "incoming" / str(segment_id(robot_store))
    incoming.offer(ROBOT, segment_id(robot_store), list_files(folder_of(robot_store)))
    shutil.copytree(transfer, server_store / "kept")
    send(incoming, robot_store)
    incoming.close()
    os.rename(server_store / "kept", transfer)
    again = Incoming(server_store)
    assert not transfer.exists()
    assert send(again, robot_store) == "000000-000"
    again.close()


def test_two_servers_do_not_take_segments_for_one_store(incoming: Incoming, server_store: Path) -> None:
    with pytest.raises(StoreError, match="another server takes segments"):
        Incoming(server_store)


def test_a_full_disk_keeps_what_came_and_goes_on_later(
    incoming: Incoming, robot_store: EpisodeStore, server_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="No space left"):
            send(incoming, robot_store)
    assert values(server_store) == []
    assert send(incoming, robot_store) == "000000-000"
    assert values(server_store) == [1.0]


def test_a_rename_that_may_not_last_is_not_acknowledged(
    incoming: Incoming, robot_store: EpisodeStore, server_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rename_only(aside: Path, target: Path) -> None:
        os.rename(aside, target)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr("steer.data.writer.publish_folder", rename_only)
        with pytest.raises(StoreError, match="cannot publish"):
            send(incoming, robot_store)
    assert values(server_store) == []
    assert send(incoming, robot_store) == "000000-000"


def test_a_writer_of_the_server_and_segments_from_outside_do_not_meet(
    incoming: Incoming, robot_store: EpisodeStore, server_store: Path
) -> None:
    send(incoming, robot_store, 0)
    with EpisodeWriter(server_store, ROBOT) as writer:
        writer.add(next(robot_store.episodes([1])))
    send(incoming, robot_store, 1)
    names = [segment.name for segment in EpisodeStore.open(server_store).segments]
    assert names == ["000000-000", "000001-001", "000002-000"]


def test_labels_travel_once_and_only_to_what_is_there(
    incoming: Incoming, robot_store: EpisodeStore, server_store: Path
) -> None:
    send(incoming, robot_store)
    segment = segment_id(robot_store)
    unknown = [GivenLabel(segment, 9, True, "key"), GivenLabel(segment_id(robot_store, 1), 0, True, "key")]
    for _ in range(2):
        incoming.label([GivenLabel(segment, 0, True, "key"), *unknown])
    assert len((server_store / "labels.jsonl").read_text().splitlines()) == 1
    (record,) = EpisodeStore.open(server_store).records()
    assert (record.success, record.success_source) == (True, "key")
    incoming.label([GivenLabel(segment, 0, False, "classifier")])
    (record,) = EpisodeStore.open(server_store).records()
    assert (record.success, record.success_source) == (False, "classifier")


def test_a_reader_sees_segments_whole_or_not_at_all(incoming: Incoming, server_store: Path, tmp_path: Path) -> None:
    store = recorded(tmp_path / "many", [float(value) for value in range(8)], length=20)
    failed: list[SteerError] = []

    def sending() -> None:
        try:
            for place in range(8):
                send(incoming, store, place)
        except SteerError as error:
            failed.append(error)

    reader = EpisodeStore.open(server_store)
    seen: list[float] = []
    thread = threading.Thread(target=sending)
    thread.start()
    while True:
        last = not thread.is_alive()
        fresh = reader.refresh()
        for each in reader.episodes(range(len(reader) - fresh, len(reader))):
            assert len(each) == 20
            assert (each.rewards == each.rewards[0]).all()
            seen.append(float(each.rewards[0]))
        if last:
            break
    assert not failed
    assert seen == [float(value) for value in range(8)]
