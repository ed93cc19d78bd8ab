"""Killed writers, many writers, full disks and damaged files, with real processes and signals."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from store_toys import make_episode

import steer.data.writer
from steer.data import EpisodeStore
from steer.errors import StoreError

PRELUDE = """
import sys, json
import numpy as np
from pathlib import Path
from store_toys import CAMERA_ROBOT, ROBOT, make_episode
from steer.data import EpisodeStore
from steer.errors import StoreError
store = EpisodeStore.open(sys.argv[1])
def say(*words): print(*words, flush=True)
"""


def spawn(store: EpisodeStore, script: str, *arguments: str) -> subprocess.Popen[str]:
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), str(here.parents[1])])
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + script, str(store.path), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )


def told(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    line = child.stdout.readline().strip()
    assert line, f"the child said nothing and ended with {child.wait(30)}"
    return line


def kill(child: subprocess.Popen[str]) -> None:
    child.send_signal(signal.SIGKILL)
    assert child.wait(30) == -signal.SIGKILL
    child.communicate()


def leftovers(store: EpisodeStore) -> list[str]:
    return [path.name for path in (store.path / "segments").iterdir() if path.name.startswith(".")]


def values(store: EpisodeStore) -> list[float]:
    return [float(episode.observations["state"][0, 0]) for episode in store.episodes()]


def test_a_writer_killed_before_the_rename_loses_only_what_was_not_acknowledged(store: EpisodeStore) -> None:
    script = """
import steer.data.writer as module
writer = store.writer()
writer.add(make_episode(3, 1)); writer.add(make_episode(3, 2))
say(*writer.flush())
def stop_here(folder): say("written"); sys.stdin.readline()
module.fsync_tree = stop_here
writer.add(make_episode(3, 3)); writer.flush()
"""
    child = spawn(store, script)
    acknowledged = told(child).split()
    assert told(child) == "written"
    kill(child)
    assert leftovers(store) == [".writing-000"]
    store.refresh()
    assert [record.id for record in store.records()] == acknowledged
    assert values(store) == [1, 2]
    with store.writer() as writer:
        assert leftovers(store) == []
        writer.add(make_episode(3, 4))
    store.refresh()
    assert values(store) == [1, 2, 4]


def test_a_writer_killed_in_the_middle_of_a_large_write(store: EpisodeStore) -> None:
    script = """
with store.writer() as writer:
    writer.add(make_episode(3, 1))
say(*writer.acknowledged)
import steer.data.segment as module
real = module._write_array
def tell(group, name, value): real(group, name, value); say(name)
module._write_array = tell
noise = np.random.default_rng(0).normal(size=(20_000, 64))
writer = store.writer(10**6)
for _ in range(10):
    writer.add(make_episode(20_000, 2, steps={"noise": noise}))
writer.flush()
say("survived")
"""
    child = spawn(store, script)
    told(child)
    # The small array is written, 100 MB of noise are on their way.
    assert told(child) == "observations/state"
    kill(child)
    store.refresh()
    # The kill may come too late, never in between.
    assert values(store) in ([1], [1] + [2] * 10)
    with store.writer() as writer:
        writer.add(make_episode(1, 3))
    assert leftovers(store) == []
    store.refresh()
    assert values(store)[-1] == 3


def test_a_living_writer_is_not_swept(store: EpisodeStore) -> None:
    script = """
import steer.data.writer as module
real = module.fsync_tree
def wait(folder): say("written"); sys.stdin.readline(); real(folder)
module.fsync_tree = wait
with store.writer() as writer:
    writer.add(make_episode(3, 1))
say("done")
"""
    child = spawn(store, script)
    assert told(child) == "written"
    with store.writer() as writer:
        assert leftovers(store) == [".writing-000"]
        writer.add(make_episode(3, 2))
    output, _ = child.communicate("go on\n", timeout=60)
    assert output.strip() == "done"
    assert store.refresh() == 2
    assert sorted(values(store)) == [1, 2]


def test_many_writers_and_a_reader_at_once(store: EpisodeStore) -> None:
    script = """
mine = int(sys.argv[2])
with store.writer(3) as writer:
    for i in range(14):
        writer.add(make_episode(1 + i % 5, 20 * mine + i))
say(json.dumps(writer.acknowledged))
"""
    children = [spawn(store, script, str(number)) for number in range(3)]
    reader = EpisodeStore.open(store.path)
    seen: list[float] = []
    while any(child.poll() is None for child in children):
        fresh = reader.refresh()
        for episode in reader.episodes(range(len(reader) - fresh, len(reader))):
            first = float(episode.observations["state"][0, 0])
            assert (episode.actions[:, 1] == pytest.approx(first / 100)) is True
            assert len(episode) == 1 + (first % 20) % 5
            seen.append(first)
    acknowledged = [name for child in children for name in json.loads(told(child))]
    for child in children:
        child.communicate()
        assert child.returncode == 0
    reader.refresh()
    assert sorted(acknowledged) == sorted(record.id for record in reader.records())
    expected = [20.0 * number + i for number in range(3) for i in range(14)]
    assert sorted(values(reader)) == expected
    assert values(reader)[: len(seen)] == seen
    assert sorted(values(EpisodeStore.open(store.path))) == expected


def test_a_file_size_limit_is_a_full_disk_and_flush_can_be_tried_again(store: EpisodeStore) -> None:
    script = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
writer = store.writer()
writer.add(make_episode(3, 1)); writer.flush()
writer.add(make_episode(500, 2)); writer.add(make_episode(500, 3))
resource.setrlimit(resource.RLIMIT_FSIZE, (600, hard))
try:
    writer.flush()
except StoreError as error:
    say(error)
say(writer.buffered, len(EpisodeStore.open(store.path)))
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
say(*writer.flush())
writer.close()
"""
    child = spawn(store, script)
    message = told(child)
    assert "no space left" in message
    assert "2 episodes are kept in memory" in message
    assert told(child) == "2 1"
    assert told(child) == "000001-000/0 000001-000/1"
    child.communicate()
    assert child.returncode == 0
    assert leftovers(store) == []
    store.refresh()
    assert values(store) == [1, 2, 3]


def test_no_space_when_syncing(store: EpisodeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    writer = store.writer(episodes_per_segment=2)
    writer.add(make_episode(3, 1))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="no space left"):
            writer.add(make_episode(3, 2))
        with pytest.raises(StoreError, match="no space left"):
            writer.close()
        assert (store.refresh(), writer.buffered, leftovers(store)) == (0, 2, [])
    writer.close()
    store.refresh()
    assert values(store) == [1, 2]


def test_a_rename_that_may_not_last_is_withdrawn(store: EpisodeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def rename_only(aside: Path, target: Path) -> None:
        os.rename(aside, target)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    writer = store.writer()
    writer.add(make_episode(3, 1))
    with monkeypatch.context() as patch:
        patch.setattr(steer.data.writer, "publish_folder", rename_only)
        with pytest.raises(StoreError, match="cannot write"):
            writer.flush()
    assert store.refresh() == 0
    writer.close()
    store.refresh()
    assert values(store) == [1]


def test_a_forked_process_does_not_keep_the_slot(store: EpisodeStore) -> None:
    writer = store.writer()
    hold, let_go = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(let_go)
        os.read(hold, 1)
        os._exit(0)
    writer.close()
    with store.writer() as other:
        other.add(make_episode(1))
    os.close(let_go)
    os.close(hold)
    os.waitpid(child, 0)
    assert other.acknowledged == ["000000-000/0"]


def test_strangers_in_the_folder_are_left_alone(store: EpisodeStore) -> None:
    (store.path / "segments" / "notes").mkdir()
    (store.path / "segments" / ".writing-by-somebody").mkdir()
    with store.writer() as writer:
        writer.add(make_episode(1))
    assert store.refresh() == 1
    assert leftovers(store) == [".writing-by-somebody"]


@pytest.fixture
def two_segments(store: EpisodeStore) -> EpisodeStore:
    with store.writer(1) as writer:
        writer.add(make_episode(50, 1))
        writer.add(make_episode(50, 2))
    return store


@pytest.mark.parametrize("name", ["zarr.json", "actions/c/0/0", "observations/state/zarr.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["truncate", "remove"])
def test_a_damaged_segment_is_named_and_can_be_passed_over(
    two_segments: EpisodeStore, name: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = two_segments.path / "segments" / "000000-000" / name
    if damage == "remove":
        path.unlink()
    else:
        os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(StoreError, match=r"segments/000000-000 is damaged.*skip_broken"):
        EpisodeStore.open(two_segments.path)
    store = EpisodeStore.open(two_segments.path, skip_broken=True)
    assert store.broken == ("000000-000",)
    assert "000000-000" in caplog.text
    assert values(store) == [2]
    assert store.refresh() == 0


def test_recording_goes_on_beside_a_damaged_segment(two_segments: EpisodeStore) -> None:
    os.truncate(two_segments.path / "segments" / "000000-000" / "actions/c/0/0", 3)
    with pytest.raises(StoreError, match="000000-000 is damaged"):
        EpisodeStore.create(two_segments.path, two_segments.robot, exist_ok=True)
    store = EpisodeStore.create(two_segments.path, two_segments.robot, exist_ok=True, skip_broken=True)
    assert store.broken == ("000000-000",)
    with store.writer() as writer:
        writer.add(make_episode(3, 3))
    store.refresh()
    assert values(store) == [2, 3]


def test_changed_bytes_are_noticed_when_read(two_segments: EpisodeStore) -> None:
    path = two_segments.path / "segments" / "000000-000" / "observations/state/c/0/0"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(StoreError, match="000000-000 is damaged"):
        EpisodeStore.open(two_segments.path).episode(0)
    assert values(EpisodeStore.open(two_segments.path, skip_broken=True)) == [2]


def test_a_segment_of_a_later_format_is_refused(two_segments: EpisodeStore) -> None:
    folder = two_segments.path / "segments" / "000000-000"
    content = json.loads((folder / "zarr.json").read_text())
    content["attributes"]["format"] = 2
    text = json.dumps(content)
    (folder / "zarr.json").write_text(text)
    sizes = json.loads((folder / "manifest.json").read_text())
    sizes["zarr.json"] = len(text)
    (folder / "manifest.json").write_text(json.dumps(sizes))
    with pytest.raises(StoreError, match="format 2"):
        EpisodeStore.open(two_segments.path)


def test_a_store_that_cannot_be_written_says_so(store: EpisodeStore) -> None:
    shutil.rmtree(store.path)
    with pytest.raises(StoreError, match="cannot open"):
        store.writer()
    with pytest.raises(StoreError, match="cannot be listed"):
        store.refresh()
