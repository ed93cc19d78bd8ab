"""Where log lines go while a command runs: to standard error, so that standard output holds results alone."""

from __future__ import annotations

import sys

import structlog


def log_to_stderr() -> None:
    """Send structlog's lines to whatever `sys.stderr` is when they are written (a live display replaces it)."""
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))
