"""Sending a store's segments: what is due, what is passed over, and an uploader that nothing stops for good."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, MutableMapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from unittest.mock import patch

import pytest
from structlog.testing import capture_logs

from steer.cli.main import main
from steer.client.experience_client import ExperienceClient
from steer.client.uploader import Uploader
from steer.client.uploads import Uploads, account
from steer.data.origin import store_identity
from steer.data.store import EpisodeStore
from steer.errors import SpecError, StoreError, UnavailableError
from steer.server.incoming import Incoming
from tests.experience import experience_server, recorded, values
from tests.fakes import ROBOT

WAIT_S = 60.0
GONE, BACK = "cannot upload, will go on trying", "uploading again"


def send_all(store: Path, address: str) -> Uploads:
    uploads = Uploads(store, ROBOT, address)
    while uploads.step():
        pass
    uploads.close()
    return uploads


def test_segments_and_labels_arrive_and_are_not_sent_again(tmp_path: Path) -> None:
    store = recorded(tmp_path / "robot", [1.0, 2.0])
    with experience_server(tmp_path / "server") as address:
        first = send_all(store.path, address)
        assert (first.counts["sent"], account(first)) == (2, f"uploaded 2 segments to {address}, 0 left")
        recorded(store.path, [3.0])
        store.refresh()
        store.label("000001-000/0", True, "key")
        store.label("000001-000/0", False, "key")
        second = send_all(store.path, address)
        assert (second.counts["sent"], second.counts["labels"]) == (1, 1)
        with patch.object(ExperienceClient, "label", side_effect=AssertionError):
            assert send_all(store.path, address).counts["sent"] == 0
    assert values(tmp_path / "server") == [1.0, 2.0, 3.0]
    labelled = EpisodeStore.open(tmp_path / "server").records()
    assert [record.success for record in labelled] == [None, False, None]


def test_a_large_segment_travels_in_pieces_and_goes_on_where_it_broke(tmp_path: Path) -> None:
    store = recorded(tmp_path / "robot", [1.0], length=2000, noise=400)
    sizes: list[int] = []
    write = Incoming.write

    def counted(self: Incoming, segment: object, parts: object) -> None:
        taken = list(parts)  # type: ignore[call-overload]  # an iterable of parts
        if len(sizes) == 3:
            sizes.append(0)
            raise StoreError("the line broke")
        write(self, segment, taken)  # type: ignore[arg-type]  # a SegmentId
        sizes.append(sum(len(data) for _, _, data in taken))

    with experience_server(tmp_path / "server") as address, patch.object(Incoming, "write", counted):
        uploads = Uploads(store.path, ROBOT, address)
        with pytest.raises(StoreError, match="the line broke"):
            uploads.step()
        assert uploads.step()
        uploads.close()
    files = [path for path in (store.path / "segments").rglob("*") if path.is_file()]
    assert sum(sizes) == sum(path.stat().st_size for path in files) > 5 << 20
    assert max(sizes) == 1 << 20
    assert values(tmp_path / "server") == [1.0]


def test_what_the_journal_lost_is_asked_for(tmp_path: Path) -> None:
    store = recorded(tmp_path / "robot", [1.0, 2.0])
    with experience_server(tmp_path / "server") as address:
        send_all(store.path, address)
        (journal,) = (store.path / "uploads").glob("*.jsonl")
        os.truncate(journal, journal.stat().st_size - 5)
        with patch.object(Incoming, "write", side_effect=AssertionError):
            assert send_all(store.path, address).counts["sent"] == 1
        assert len(journal.read_text().splitlines()) == 2
    assert values(tmp_path / "server") == [1.0, 2.0]


def test_another_server_store_gets_everything(tmp_path: Path) -> None:
    store = recorded(tmp_path / "robot", [1.0])
    for name in ("first", "second"):
        with experience_server(tmp_path / name) as address:
            assert send_all(store.path, address).counts["sent"] == 1
        assert values(tmp_path / name) == [1.0]


def test_a_truncated_segment_is_passed_over_and_said_once(tmp_path: Path) -> None:
    store = recorded(tmp_path / "robot", [1.0, 2.0, 3.0])
    os.truncate(store.path / "segments/000001-000/rewards/c/0", 3)
    with experience_server(tmp_path / "server") as address, capture_logs() as logs:
        uploads = send_all(store.path, address)
    assert (uploads.counts["sent"], uploads.counts["damaged"]) == (2, 1)
    (said,) = [line for line in logs if line["log_level"] == "error"]
    assert "000001-000 is damaged (rewards/c/0 has 3 bytes" in said["reason"]
    assert account(uploads) == f"uploaded 2 segments to {address}, 1 left (1 damaged)"
    assert values(tmp_path / "server") == [1.0, 3.0]


def test_a_segment_that_is_restored_brings_the_labels_that_others_did_not_wait_for(tmp_path: Path) -> None:
    store = recorded(tmp_path / "robot", [1.0, 2.0])
    for segment in store.segments:
        store.label(f"{segment.name}/0", True, "key")
    rewards = store.path / "segments/000000-000/rewards/c/0"
    whole = rewards.read_bytes()
    os.truncate(rewards, 3)
    with experience_server(tmp_path / "server") as address:
        assert send_all(store.path, address).counts["labels"] == 1
        rewards.write_bytes(whole)
        again = send_all(store.path, address)
        assert (again.counts["sent"], again.counts["labels"]) == (1, 1)
        assert send_all(store.path, address).counts["labels"] == 0
    assert values(tmp_path / "server") == [2.0, 1.0]
    assert [record.success for record in EpisodeStore.open(tmp_path / "server").records()] == [True, True]


def test_what_the_server_refuses_is_passed_over_and_counted(tmp_path: Path) -> None:
    store = recorded(tmp_path / "robot", [1.0], length=200, noise=20)
    recorded(store.path, [2.0])
    with experience_server(tmp_path / "server", max_segment_bytes=20_000) as address, capture_logs() as logs:
        uploads = send_all(store.path, address)
    assert (uploads.counts["sent"], uploads.counts["refused"]) == (1, 1)
    assert any("larger --max-segment-bytes" in str(line.get("reason")) for line in logs)
    assert values(tmp_path / "server") == [2.0]


def test_a_store_that_was_refused_is_never_called_complete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = recorded(tmp_path / "robot", [1.0], length=200, noise=20)
    with experience_server(tmp_path / "server", max_segment_bytes=20_000) as address:
        with capture_logs() as logs, Uploader(Uploads(store.path, ROBOT, address)) as uploader:
            wait_for(lambda: uploader.finish(WAIT_S))
        with pytest.raises(SystemExit):
            main(["upload", str(store.path), "--server", address])
    (left,) = [line for line in logs if line["event"] == "segments are left to upload"]
    assert (left["segments"], left["refused"]) == (1, 1)
    said = capsys.readouterr().err
    assert f"uploaded 0 segments to {address}, 1 left (1 refused)" in said
    assert "error: 1 segments of" in said
    assert "already" not in said


def test_only_one_process_sends_from_a_store(tmp_path: Path) -> None:
    store = recorded(tmp_path / "robot", [])
    uploads = Uploads(store.path, ROBOT, "127.0.0.1:1")
    with pytest.raises(StoreError, match="another process is sending"):
        Uploads(store.path, ROBOT, "127.0.0.1:1")
    uploads.close()
    Uploads(store.path, ROBOT, "127.0.0.1:1").close()


def test_the_servers_own_store_is_refused_before_anything_moves(tmp_path: Path) -> None:
    store = recorded(tmp_path / "store", [1.0])
    with experience_server(store.path) as address, pytest.raises(SpecError, match="leave --upload away"):
        Uploader(Uploads(store.path, ROBOT, address)).__enter__()
    assert store_identity(store.path) == store_identity(store.path)


def test_a_server_that_is_not_there_is_said_before_anything_moves(tmp_path: Path) -> None:
    uploads = Uploads(recorded(tmp_path / "store", []).path, ROBOT, "127.0.0.1:1", timeout_s=5.0)
    with pytest.raises(UnavailableError, match="no server at"):
        Uploader(uploads).__enter__()


def events(logs: Sequence[MutableMapping[str, object]]) -> list[object]:
    return [line["event"] for line in logs]


def quick() -> AbstractContextManager[object]:
    return patch.multiple("steer.client.uploader", SHORTEST_WAIT_S=0.05, LONGEST_WAIT_S=0.1, POLL_S=0.05)


def wait_for(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_an_uploader_says_once_that_the_server_is_gone_and_once_that_it_is_back(tmp_path: Path) -> None:
    store = recorded(tmp_path / "robot", [1.0])
    with capture_logs() as logs, quick():
        with experience_server(tmp_path / "server") as address:
            uploader = Uploader(Uploads(store.path, ROBOT, address))
            uploader.__enter__()
            wait_for(lambda: values(tmp_path / "server") == [1.0])
        recorded(store.path, [2.0])
        wait_for(lambda: GONE in events(logs))
        with experience_server(tmp_path / "server", address):
            wait_for(lambda: BACK in events(logs))
            uploader.__exit__()
    assert [event for event in events(logs) if event in (GONE, BACK)] == [GONE, BACK]
    assert values(tmp_path / "server") == [1.0, 2.0]


def test_an_uploader_ends_in_time_and_says_what_is_left(tmp_path: Path) -> None:
    store = recorded(tmp_path / "robot", [])
    with capture_logs() as logs, quick():
        with experience_server(tmp_path / "server") as address:
            uploader = Uploader(Uploads(store.path, ROBOT, address), finish_s=0.2)
            uploader.__enter__()
        recorded(store.path, [1.0, 2.0])
        uploader.__exit__()
    (left,) = [line for line in logs if line["event"] == "segments are left to upload"]
    assert left["segments"] == 2
    assert left["send_them_with"] == f"steer upload {store.path} --server {address}"


def test_the_command_sends_what_was_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = recorded(tmp_path / "robot", [1.0, 2.0])
    with experience_server(tmp_path / "server") as address:
        main(["upload", str(store.path), "--server", address])
        assert "uploaded 2 segments" in capsys.readouterr().err
        os.truncate(store.path / "segments/000001-000/manifest.json", 3)
        recorded(store.path, [3.0])
        main(["upload", str(store.path), "--server", address])
        assert "uploaded 1 segment " in capsys.readouterr().err
    assert values(tmp_path / "server") == [1.0, 2.0, 3.0]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_the_command_fails_when_its_thread_died(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = recorded(tmp_path / "robot", [1.0])
    with (
        experience_server(tmp_path / "server") as address,
        patch.object(ExperienceClient, "send", side_effect=ZeroDivisionError),
        pytest.raises(SystemExit),
    ):
        main(["upload", str(store.path), "--server", address])
    assert "ended with the error above" in capsys.readouterr().err


def test_the_command_fails_where_something_could_not_be_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = recorded(tmp_path / "robot", [1.0])
    os.truncate(store.path / "segments/000000-000/manifest.json", 3)
    with experience_server(tmp_path / "server") as address, pytest.raises(SystemExit):
        main(["upload", str(store.path), "--server", address])
    assert "error: 1 segments of" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["upload", str(tmp_path), "--server", "127.0.0.1:1"])
    assert "not an episode store" in capsys.readouterr().err
