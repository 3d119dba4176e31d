"""Tables as lines of text, in several layouts, of which a terminal gets the first that it is wide enough for.

Rich makes a table that is too wide fit by cutting its cells, numbers too; here a narrow terminal gets another layout.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.console import RenderableType

Block = tuple[str, Sequence[Sequence[str]]]
"""A title, and the rows of cells that stand below it."""

_UNBOUNDED = 100_000
_INDENT = "  "


def lines(*parts: RenderableType, width: int | None = None) -> list[str]:
    """Return tables and text as plain lines of at most `width` columns; None: as wide as they need."""
    from rich.console import Console

    written = io.StringIO()
    Console(
        file=written,
        width=width or _UNBOUNDED,
        color_system=None,
        force_terminal=False,
        highlight=False,
        emoji=False,
        soft_wrap=True,
    ).print(*parts, sep="\n")
    return [line.rstrip() for line in written.getvalue().splitlines()]


def stacked(blocks: Sequence[Block], justify: Sequence[Literal["left", "right"]]) -> list[str]:
    """Return each block as its title and, below it, its rows, whose cells are aligned over all blocks.

    Args:
        blocks: From above to below; cells hold no newline.
        justify: Where the cells of each column stand.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 1, 0, 0))
    for side in justify:
        table.add_column(justify=side)
    for _, rows in blocks:
        for row in rows:
            table.add_row(*map(Text, row))
    laid = iter(lines(table) if table.row_count else [])
    return [line for title, rows in blocks for line in (title, *(f"{_INDENT}{next(laid)}" for _ in rows))]


def fitting(width: int | None, layouts: Sequence[Sequence[str]]) -> Sequence[str]:
    """Return the first layout that is at most `width` columns wide, or the last where none is; None: the first.

    A terminal folds what is too wide even so, and loses nothing.
    """
    from rich.cells import cell_len

    if width is None:
        return layouts[0]
    return next((each for each in layouts if max(map(cell_len, each), default=0) <= width), layouts[-1])


def end(text: str, most: int) -> str:
    """Return `text`, or ``…`` and its end where it is wider than `most`: paths and names of layers differ there."""
    from rich.cells import cell_len

    if cell_len(text) <= most:
        return text
    while cell_len(text) >= most:
        text = text[1:]
    return f"…{text}"
