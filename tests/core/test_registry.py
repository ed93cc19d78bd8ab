"""Families are found by entry points; a stranger's folder that shadows ours is told so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from steer import registry
from steer.errors import ConfigError


def test_our_families_are_registered() -> None:
    assert "diffusion" in registry.kinds(registry.POLICIES)
    assert "q" in registry.kinds(registry.CRITICS)
    assert {"fake", "gym", "panda"} <= set(registry.kinds(registry.ROBOTS))


def test_an_unknown_kind_lists_the_known() -> None:
    with pytest.raises(ConfigError, match=r"unknown kind 'nothing' of policies: installed are .*diffusion"):
        registry.policy("nothing:here")


def test_a_users_folder_called_policies_gets_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "policies" / "diffusion").mkdir(parents=True)
    (tmp_path / "policies" / "__init__.py").write_text("")
    (tmp_path / "policies" / "diffusion" / "__init__.py").write_text("FAMILY = 1\n")
    code = (
        "from steer import registry\nfrom steer.errors import ConfigError\n"
        "try:\n    registry.family(registry.POLICIES, 'diffusion')\n"
        "except ConfigError as error:\n    print(error)\n"
    )
    # `python -c` puts the working directory first on the path, as a user's own scripts do.
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "a folder of yours has the name of one of our packages" in done.stdout
