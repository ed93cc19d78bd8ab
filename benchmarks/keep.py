"""Where results are kept: one JSON file per benchmark, written whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def keep(path: Path, result: Any) -> None:
    """Write a result, making its folder if need be; a run that is stopped meanwhile leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}")
    aside.write_text(json.dumps(result, indent=1) + "\n")
    aside.replace(path)
