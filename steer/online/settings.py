"""What a run was started with, for whoever reads its folder. Imports no torch: a server limits its threads first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from steer.errors import ConfigError


def read_settings(run: Path) -> dict[str, Any]:
    """What a run was started with, as `steer finetune` wrote it.

    Raises `ConfigError` where `run` is no run's folder, or its run.json cannot be read or holds something else.
    """
    document = run / "run.json"
    try:
        settings: Any = json.loads(document.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(f"{run}: no run.json here: give the folder of a `steer finetune` run, its --out") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{document} cannot be read ({error}): restore it from a copy") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"{document} holds no settings of a run ({settings!r:.50}): restore it from a copy")
    return settings
