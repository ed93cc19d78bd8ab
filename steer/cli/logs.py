"""Where log lines go while a command runs: to standard error, so that standard output holds results alone."""

from __future__ import annotations

import sys

import structlog


def log_to_stderr() -> None:
    """Send structlog's lines to whatever `sys.stderr` is when they are written (a live display replaces it)."""
    # By default an exception is drawn with all of its local variables: seconds, where those are images.
    renderer = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
    )
    structlog.configure(
        processors=[*structlog.get_config()["processors"][:-1], renderer],
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )
