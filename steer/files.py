"""Publishing files and folders atomically: written aside, synced, then one rename."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path


def fsync_tree(folder: Path) -> None:
    """Push every file and directory below `folder` to the disk, so that a rename never publishes what could vanish."""
    for root, _, names in os.walk(folder):
        for name in names:
            fsync_path(Path(root) / name)
        fsync_path(Path(root))


def fsync_path(path: Path) -> None:
    """Push one file's content, or one directory's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a file whole, or leave what was there; its folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        aside.write_text(text, encoding="utf-8")
        fsync_path(aside)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    fsync_path(path.parent)


def publish_folder(aside: Path, target: Path) -> None:
    """Rename `aside` to `target`, which must not exist, and make the rename durable."""
    os.rename(aside, target)
    fsync_path(target.parent)


def replace_folder(aside: Path, target: Path) -> None:
    """Publish `aside` as `target`; an older folder there is moved away first and removed after.

    A directory cannot be replaced by one rename; between the two the name is absent, never half written.
    """
    old = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}"
    if target.exists():
        os.rename(target, old)
    try:
        publish_folder(aside, target)
    except OSError:
        if old.exists() and not target.exists():
            os.rename(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)
