"""Robot and server are killed, disks fill up and segments are cut while episodes travel: each arrives, and once."""

from __future__ import annotations

import os
import re
import resource
import signal
from collections import Counter
from pathlib import Path

import pytest

from steer.data.origin import read_origins, store_identity
from steer.data.parcel import list_files
from steer.data.store import EpisodeStore
from steer.data.writer import published
from tests.experience import recorded
from tests.faults.stalling import StallingLine
from tests.processes import WAIT_S, Bench, Command

SHORT_EPISODES = ("--episode-s", "0.2")


def check_everything_arrived_once(robot: Path, server: Path) -> int:
    """Every published segment of the robot is in the server's store, once and unchanged; returns their number."""
    origins = read_origins(server)
    ours = {segment.segment: received.name for segment, received in origins.items()}
    assert {segment.store for segment in origins} == {store_identity(robot)}
    assert len(origins) == len(published(server))
    assert sorted(ours) == [path.name for path in published(robot)]
    for path in published(robot):
        assert list_files(path) == list_files(server / "segments" / ours[path.name])
    assert sum(1 for _ in EpisodeStore.open(server).episodes()) == len(EpisodeStore.open(robot))
    assert [path.name for path in (server / "incoming").iterdir()] == ["lock"]
    return len(ours)


def record_large(robot: Path, values: list[float]) -> None:
    """Segments of 5 MB that do not compress: several writes each."""
    recorded(robot, values, length=2000, noise=320)


def count(output: str, *phrases: str) -> list[int]:
    return [output.count(phrase) for phrase in phrases]


def limit_files(command: Command, size: int | None) -> None:
    """What a full disk looks like to one process: no file may grow beyond this."""
    _, hard = resource.prlimit(command.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(command.process.pid, resource.RLIMIT_FSIZE, (hard if size is None else size, hard))


@pytest.fixture
def robot(tmp_path: Path) -> Path:
    return tmp_path / "robot"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "server"


def test_a_robot_killed_in_mid_episode_loses_that_episode_alone(bench: Bench, robot: Path, store: Path) -> None:
    server, address = bench.serve("--experience", str(store))
    run = bench.run(address, "--record", str(robot), "--upload", *SHORT_EPISODES)
    server.wait_for("segment received")
    run.wait_for("moving")
    run.signal(signal.SIGKILL)
    run.end()
    kept = [path.name for path in published(robot)]

    code, output = bench.run(address, "--record", str(robot), "--upload", "--duration-s", "1").end()

    assert code == 0, output
    assert ", 0 left" in output
    assert [path.name for path in published(robot)][: len(kept)] == kept
    assert check_everything_arrived_once(robot, store) == len(kept) + 1


def test_a_robot_killed_in_mid_upload_goes_on_at_the_byte_that_arrived(bench: Bench, robot: Path, store: Path) -> None:
    record_large(robot, [1.0, 2.0])
    total = sum(file.size for path in published(robot) for file in list_files(path))
    _, address = bench.serve("--experience", str(store))
    with StallingLine(address, stall_after=total // 4 * 3) as line:
        run = bench.run(line.address, "--record", str(robot), "--upload")
        assert line.stalled.wait(WAIT_S)
        run.signal(signal.SIGKILL)
        run.end()
    there = sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    assert there > total // 2

    with StallingLine(address) as line:
        code, output = bench.steer("upload", str(robot), "--server", line.address).end()
        assert line.forwarded < total - there + (1 << 20)

    assert code == 0, output
    assert "uploaded 1 segment to" in output
    assert check_everything_arrived_once(robot, store) == 2


def test_a_server_killed_in_mid_upload_is_waited_for_and_nothing_is_lost(
    bench: Bench, robot: Path, store: Path
) -> None:
    server, address = bench.serve("--experience", str(store))
    with StallingLine(address, stall_after=4 << 20) as line:
        run = bench.run(line.address, "--record", str(robot), "--upload", "--give-up-s", "600")
        run.wait_for("moving")
        record_large(robot, [1.0, 2.0])
        assert line.stalled.wait(WAIT_S)
        server.signal(signal.SIGKILL)
        server.end()
        line.release()
        run.wait_for("cannot upload")
        again, _ = bench.serve("--experience", str(store), address=address)
        for _ in range(2):
            again.wait_for("segment received")
        run.signal(signal.SIGINT)
        code, output = run.end()

    assert code == 0, output
    assert count(output, "cannot upload", "uploading again") == [1, 1]
    assert re.search(r"moving(?s:.*)holding: no fresh chunk(?s:.*)moving", output)
    assert ", 0 left" in output
    assert check_everything_arrived_once(robot, store) == 3


def test_a_server_killed_again_and_again_acknowledges_nothing_that_is_lost(
    bench: Bench, robot: Path, store: Path
) -> None:
    recorded(robot, [float(value) for value in range(16)])
    server, address = bench.serve("--experience", str(store))
    upload = bench.steer("upload", str(robot), "--server", address, "--give-up-s", "600")
    for _ in range(2):
        server.wait_for("segment received")
        server.signal(signal.SIGKILL)
        server.end()
        server, _ = bench.serve("--experience", str(store), address=address)
    code, output = upload.end()
    assert code == 0, output
    assert check_everything_arrived_once(robot, store) == 16


def test_a_full_disk_under_the_servers_store_is_said_and_waited_for(bench: Bench, robot: Path, store: Path) -> None:
    record_large(robot, [1.0])
    server, address = bench.serve("--experience", str(store))
    limit_files(server, 1 << 20)
    run = bench.run(address, "--record", str(robot), "--upload", *SHORT_EPISODES)
    assert "free some space there" in run.wait_for("cannot upload.*").group()
    run.wait_for("moving")
    limit_files(server, None)
    run.wait_for("uploading again")
    run.signal(signal.SIGINT)
    code, output = run.end()
    assert code == 0, output
    assert count(output, "cannot upload", "uploading again") == [1, 1]
    check_everything_arrived_once(robot, store)


def test_a_full_disk_under_the_recorder_stops_neither_the_robot_nor_what_is_in_memory(
    bench: Bench, robot: Path, store: Path
) -> None:
    _, address = bench.serve("--experience", str(store))
    words = ("--record", str(robot), "--upload", *SHORT_EPISODES)
    run = bench.steer("run", "--robot", "toy:", "--server", address, *words, FAKE_SENT="/dev/null")
    run.wait_for("moving")
    limit_files(run, 300)
    assert "no space left" in run.wait_for("not written.*").group()
    run.wait_for("moving")
    limit_files(run, None)
    run.signal(signal.SIGINT)
    code, output = run.end()
    assert code == 0, output
    recorded_episodes = int(re.search(r"recorded (\d+) episodes", output).group(1))  # type: ignore[union-attr]  # it is there
    assert recorded_episodes == len(EpisodeStore.open(robot)) >= 11
    numbers = Counter(record.info["episode"] for record in EpisodeStore.open(store).records())
    assert numbers == Counter(range(1, recorded_episodes + 1))
    check_everything_arrived_once(robot, store)


def test_a_truncated_segment_of_the_robot_costs_its_episodes_alone(bench: Bench, robot: Path, store: Path) -> None:
    recorded(robot, [1.0, 2.0])
    os.truncate(robot / "segments" / "000000-000" / "rewards/c/0", 5)
    _, address = bench.serve("--experience", str(store))
    code, output = bench.run(address, "--record", str(robot), "--upload", "--duration-s", "1").end()
    assert code == 0, output
    assert count(output, "passing over a segment", "a segment cannot be uploaded") == [1, 1]
    assert len(published(robot)) == 3
    assert sorted(segment.segment for segment in read_origins(store)) == ["000001-000", "000002-000"]
    assert len(EpisodeStore.open(store)) == 2


def test_a_truncated_segment_of_the_server_does_not_stop_it(bench: Bench, robot: Path, store: Path) -> None:
    recorded(robot, [1.0])
    server, address = bench.serve("--experience", str(store))
    assert bench.steer("upload", str(robot), "--server", address).end()[0] == 0
    server.signal(signal.SIGKILL)
    server.end()
    os.truncate(store / "segments" / "000000-000" / "rewards/c/0", 5)
    recorded(robot, [2.0])

    bench.serve("--experience", str(store), address=address)
    code, output = bench.steer("upload", str(robot), "--server", address).end()

    assert code == 0, output
    reader = EpisodeStore.open(store, skip_broken=True)
    assert reader.broken == ("000000-000",)
    assert [episode.rewards[0] for episode in reader.episodes()] == [2.0]
