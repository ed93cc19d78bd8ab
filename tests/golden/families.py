"""What can be compared: one module per sub-folder of a golden folder.

Such a module has `compare(folder: Path) -> Iterator[Comparison]`. It finds every checkpoint in `folder` by its layout, not by
its name, so that others of the same format, with other seeds and dimensions, are compared as well; what it cannot make sense
of is an error, never left out.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.golden.comparison import Comparison

FAMILIES: tuple[str, ...] = ("lerobot", "octo", "openpi", "openvla", "openvla_oft", "vgps")
"""Sub-folders that are compared, each by `tests.golden.compare_NAME`."""


def compare(folder: Path, families: Sequence[str] = FAMILIES) -> Iterator[Comparison]:
    """Everything in `folder` that belongs to the families. Raises `FileNotFoundError` when there is nothing to compare."""
    present = [name for name in families if (folder / name).is_dir()]
    if not present:
        raise FileNotFoundError(f"{folder}: none of the sub-folders {list(families)} is there")
    for name in present:
        module = importlib.import_module(f"tests.golden.compare_{name}")
        try:
            yield from module.compare(folder / name)
        except KeyError as error:
            error.add_note(f"{folder / name}: this array is missing from the golden data: copy them again")
            raise
