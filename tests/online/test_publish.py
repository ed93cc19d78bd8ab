"""Versions appear whole or not at all; a run has one learner."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from steer.errors import CheckpointError, ConfigError
from steer.online.publish import KEPT, Version, Versions
from steer.online.run_folder import OnlineFolder


def saver(text: str):  # type: ignore[no-untyped-def]  # a Callable[[Path], str]
    def save(path: Path) -> str:
        path.mkdir()
        (path / "weights").write_text(text)
        return text

    return save


def test_a_version_is_written_before_the_pointer_says_so(tmp_path: Path) -> None:
    versions = Versions(tmp_path)
    with pytest.raises(CheckpointError, match="nothing was published"):
        versions.current()
    told = versions.publish(Version(3, episodes=75, why="round 3"), saver("p"), saver("c"))
    assert told == versions.current() == Version(3, "p", "c", 75, why="round 3")
    assert (versions.folder(3) / "critic" / "weights").read_text() == "c"


def test_a_save_that_fails_leaves_the_older_version_in_place(tmp_path: Path) -> None:
    versions = Versions(tmp_path)
    versions.publish(Version(1), saver("p"), saver("c"))

    def full(path: Path) -> str:
        raise OSError(28, "No space left on device")

    with pytest.raises(CheckpointError, match="free space, then resume"):
        versions.publish(Version(2), saver("p2"), full)
    assert versions.current().version == 1
    assert [path.name for path in (tmp_path / "versions").iterdir()] == ["000001"]


DIES = """
import os, signal, sys
from pathlib import Path
from steer.online.publish import Version, Versions

def save(path):
    path.mkdir()
    (path / "weights").write_text("new")
    return "new"

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

where = sys.argv[2]
if where == "writing":
    last = die
else:
    last = save
    import steer.online.publish as module
    setattr(module, "replace_folder", die) if where == "renaming" else setattr(module.Versions, "_point", die)
Versions(Path(sys.argv[1])).publish(Version(2), save, last)
"""


@pytest.mark.parametrize("where", ["writing", "renaming", "pointing"])
def test_a_publisher_killed_in_the_middle_is_not_seen_and_done_again(tmp_path: Path, where: str) -> None:
    versions = Versions(tmp_path)
    versions.publish(Version(1), saver("old"), saver("old"))

    killed = subprocess.run([sys.executable, "-c", DIES, str(tmp_path), where], check=False, env=dict(os.environ))

    assert killed.returncode == -9
    assert versions.current().version == 1
    assert (versions.folder(1) / "policy" / "weights").read_text() == "old"
    versions.publish(Version(2), saver("again"), saver("again"))
    assert versions.current().policy == "again"
    assert (versions.folder(2) / "critic" / "weights").read_text() == "again"
    assert sorted(path.name for path in (tmp_path / "versions").iterdir()) == ["000001", "000002"]


def test_old_versions_are_removed_but_the_first(tmp_path: Path) -> None:
    versions = Versions(tmp_path)
    for number in range(KEPT + 3):
        versions.publish(Version(number), saver("p"), saver("c"))
    assert versions.numbers() == [0, *range(3, KEPT + 3)]


def test_copies_beside_the_versions_are_left_alone(tmp_path: Path) -> None:
    versions = Versions(tmp_path)
    copies = ["000007.bak", "000007 (copy)", "7", "notes"]
    for name in copies:
        (tmp_path / "versions" / name).mkdir(parents=True)
    versions.publish(Version(KEPT + 8), saver("p"), saver("c"))
    assert versions.numbers() == [KEPT + 8]
    assert all((tmp_path / "versions" / name).is_dir() for name in copies)


def test_a_second_learner_is_refused_and_a_dead_one_is_not_in_the_way(tmp_path: Path) -> None:
    run = OnlineFolder(tmp_path / "run")
    with run.locked(), pytest.raises(ConfigError, match="another learner"), OnlineFolder(tmp_path / "run").locked():
        pass
    with OnlineFolder(tmp_path / "run").locked():
        pass


def test_a_folder_is_claimed_resumed_or_refused(tmp_path: Path) -> None:
    run, settings = OnlineFolder(tmp_path / "run"), {"seed": 0, "config": {"utd": 1.0}}
    with run.locked():
        with pytest.raises(ConfigError, match="nothing to resume"):
            run.claim(settings, resume=True, overwrite=False)
        assert not run.claim(settings, resume=False, overwrite=False)
        with pytest.raises(ConfigError, match="holds a run"):
            run.claim(settings, resume=False, overwrite=False)
        with pytest.raises(ConfigError, match=r"seed was 0, now 1"):
            run.claim({**settings, "seed": 1}, resume=True, overwrite=False)
        # Killed before its first state was saved: it begins anew.
        assert not run.claim(settings, resume=True, overwrite=False)
        (run.path / "versions").mkdir()
        assert not run.claim({**settings, "seed": 1}, resume=False, overwrite=True)
        assert not (run.path / "versions").exists()
        # A server that was killed while it refused a version leaves this.
        (run.path / ".refused.json.0a1b2c3d").touch()
        assert not run.claim({**settings, "seed": 1}, resume=True, overwrite=False)
        (run.path / "thesis.tex").touch()
        with pytest.raises(ConfigError, match="holds something else"):
            run.claim(settings, resume=True, overwrite=False)
