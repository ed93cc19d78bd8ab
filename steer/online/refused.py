"""Versions of a run that are not to be served again.

RUN/refused.json   version -> {"why", "time_s"} (Unix seconds); a person may edit it; servers that follow the run and the
                   learner's own actors obey, also when the newest version is taken out again
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from steer.errors import ConfigError
from steer.files import write_text

_NAME = "refused.json"


def refused(run: Path) -> dict[int, str]:
    """The versions of a run that are not to be served again, and why. Raises `ConfigError` where that cannot be read."""
    path = run / _NAME
    try:
        content = json.loads(path.read_text())
        return {int(number): str(about["why"]) for number, about in content.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise ConfigError(
            f'{path} cannot be read ({error!r}): it maps versions to reasons, such as {{"7": {{"why": "drops the cube"}}}}'
        ) from error


def playable(run: Path, newest: int) -> int:
    """The highest version up to `newest` that is not refused; the start, version 0, where all are."""
    unwanted = refused(run)
    return next((number for number in range(newest, 0, -1) if number not in unwanted), 0)


def refuse(run: Path, number: int, why: str) -> None:
    """Remember that a version is not to be served again."""
    path = run / _NAME
    refused(run)  # a file that cannot be read is not written over
    content = json.loads(path.read_text()) if path.exists() else {}
    content[str(number)] = {"why": why, "time_s": time.time()}
    write_text(path, json.dumps(content, indent=1) + "\n")
