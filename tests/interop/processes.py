"""`steer` as a user starts it: commands that end, and a server that says when it is ready."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def steer(*words: object) -> None:
    """Run a command to its end; raises `CalledProcessError` when it fails."""
    subprocess.run(_command(words), check=True)


@contextmanager
def server(*words: object, ready: str) -> Iterator[str]:
    """`steer serve` with these flags; yields the first group of `ready`, a pattern, once a line of its log has it."""
    with subprocess.Popen(_command(("serve", *words)), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            found = re.search(ready, line)
            if found:
                break
        else:
            raise SystemExit("the server did not start:\n" + "".join(lines))
        try:
            yield found.group(1)
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)


def small_models(folder: Path) -> tuple[Path, Path, Path]:
    """An episode store, a policy and a critic that can answer, but not much more."""
    store, policy, critic = (folder / name for name in ("episodes", "policy", "critic"))
    steer("collect", store, "--episodes", 20)
    steer("train", "policy", store, policy, "--steps", 200, "--threads", 1)
    steer("train", "critic", store, critic, "--policy", policy, "--steps", 50, "--threads", 1)
    return store, policy, critic


def _command(words: tuple[object, ...]) -> list[str]:
    return [sys.executable, "-m", "steer.cli.main", *map(str, words)]
