"""Where the small Octo checkpoints are."""

from __future__ import annotations

from pathlib import Path

GOLDEN = Path(__file__).parents[2] / "golden" / "octo"
