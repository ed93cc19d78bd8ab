"""Finds the interpreter of LeRobot's own environment."""

from __future__ import annotations

import os
from pathlib import Path

from steer.errors import ConfigError

FOLDER = ".venv-lerobot"
VARIABLE = "STEER_LEROBOT_PYTHON"


def find_python(given: str = "") -> Path:
    """The option `python`, else $STEER_LEROBOT_PYTHON, else `.venv-lerobot` here or beside our packages.

    Raises `ConfigError` when it is not there.
    """
    named = given or os.environ.get(VARIABLE, "")
    roots = (Path.cwd(), Path(__file__).resolve().parents[2])
    places = [Path(named)] if named else [root / FOLDER / "bin" / "python" for root in roots]
    for place in places:
        if os.access(place, os.X_OK) and place.is_file():
            # absolute, not resolved: the interpreter of an environment is a link that must keep its own name.
            return place.absolute()
    raise ConfigError(
        f"LeRobot policies run in an environment of their own, and none is at {[str(place) for place in places]}: "
        f"run `make install-lerobot`, or name its interpreter with ?python=PATH or ${VARIABLE}"
    )
