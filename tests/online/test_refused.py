"""What a server went back from is not played again."""

from __future__ import annotations

from pathlib import Path

import pytest

from steer.errors import ConfigError
from steer.online.actor import Actor, Cast, Play
from steer.online.refused import playable, refuse, refused
from tests.online.toys import SCENE, Run


@pytest.mark.parametrize(("unwanted", "expected"), [((), 3), ((3,), 2), ((2,), 3), ((3, 2), 1), ((0, 1, 2, 3), 0)])
def test_the_highest_version_that_is_not_refused_is_played(
    tmp_path: Path, unwanted: tuple[int, ...], expected: int
) -> None:
    for number in unwanted:
        refuse(tmp_path, number, "drops the cube")
    assert playable(tmp_path, 3) == expected


def test_a_file_that_cannot_be_read_is_an_error_and_stays(tmp_path: Path) -> None:
    (tmp_path / "refused.json").write_text('["7"]')
    with pytest.raises(ConfigError, match="drops the cube"):
        refused(tmp_path)
    with pytest.raises(ConfigError):
        refuse(tmp_path, 8, "slow")
    assert (tmp_path / "refused.json").read_text() == '["7"]'


@pytest.mark.parametrize("version", [None, 1])
def test_an_actor_plays_with_an_earlier_version(models: Path, tmp_path: Path, version: int | None) -> None:
    run = Run(models, tmp_path)
    run.learner.run(2)
    actor = Actor(SCENE, Cast(tmp_path, str(models / "policy"), 2, 2, 1.0, 4))
    try:
        assert actor(Play(5, version)).info["version"] == 1
        refuse(tmp_path, 1, "worse than version 0")
        assert actor(Play(6, version)).info["version"] == 0
    finally:
        actor.close()
