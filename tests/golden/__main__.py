"""Compare our models with every golden checkpoint in a folder; exit code 1 when one is further away than its bound.

python -m tests.golden FOLDER [--only openvla ...]
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from tests.golden.comparison import Comparison
from tests.golden.families import FAMILIES, compare


def main(folder: Annotated[Path, tyro.conf.Positional], only: tuple[str, ...] = ()) -> int:
    """Compare and print.

    Args:
        folder: Holds a sub-folder per family, as `tests/golden` does.
        only: Families to compare; all that are there unless given.
    """
    unknown = sorted(set(only) - set(FAMILIES))
    if unknown:
        Console(stderr=True).print(f"unknown families {unknown}: there are {list(FAMILIES)}")
        return 2
    try:
        found = list(compare(folder, only or FAMILIES))
    except FileNotFoundError as error:
        Console(stderr=True).print(str(error))
        return 2
    # A table in a file is read by others: nothing of it may be cut.
    console = Console()
    (console if console.is_terminal else Console(width=140)).print(_table(found))
    failed = [comparison for comparison in found if not comparison.passed]
    print(f"{len(found)} quantities compared, {len(failed)} past their bound")
    return 1 if failed else 0


def _table(found: Sequence[Comparison]) -> Table:
    table = Table("source", "quantity", "largest difference", "bound", "")
    for one in found:
        verdict = "" if one.passed else "[red]past the bound[/]"
        table.add_row(one.source, one.quantity, f"{one.difference:.3g}", f"{one.bound:.3g}", verdict)
    return table


if __name__ == "__main__":
    raise SystemExit(tyro.cli(main))
