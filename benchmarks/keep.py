"""Where results are kept: one JSON file per benchmark, written whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from steer.files import write_text


def keep(path: Path, result: Any) -> None:
    """Write a result, making its folder if need be; a run that is stopped meanwhile leaves the old one."""
    write_text(path, json.dumps(result, indent=1) + "\n")
