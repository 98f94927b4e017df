"""How commands print: tables with rich on a terminal where it is installed, plain lines otherwise.

Machines ask with `--json` and get one JSON document on standard output.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final

import msgspec

#: Word of a state → rich's style for it; the word itself always stands there, too.
_STYLES: Final = {"good": "green", "warning": "yellow", "bad": "bold red", "off": "dim"}


def is_rich() -> bool:
    """Whether standard output is a terminal and rich can be used."""
    if not sys.stdout.isatty():
        return False
    try:
        import rich  # noqa: F401
    except ImportError:
        return False
    return True


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str = "") -> None:
    """Print rows under column names; a cell that is the word of a state gets its colour."""
    if is_rich():
        _rich_table(columns, rows, title)
        return
    cells = [list(columns), *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    if title:
        print(title)
    for row in cells:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )


def _rich_table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(*columns, title=title or None, title_justify="left", box=None, pad_edge=False)
    for row in rows:
        # As text, never as markup: a cell may hold brackets, and whatever else a user typed.
        drawn.add_row(*(Text(str(cell), style=_STYLES.get(str(cell), "")) for cell in row))
    Console().print(drawn)


def document(value: Any) -> None:
    """Print a value as one JSON document, indented for people who look at it all the same."""
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())
