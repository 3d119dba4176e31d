"""The two streams of the screen: results on stdout, everything else on stderr; and text that cannot harm a terminal."""

from __future__ import annotations

import io
import os
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

ACCENT = "cyan"
"""The one accent colour."""

_REORDERING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@cache
def console() -> Console:
    """Return the console on stderr: progress, tables, prose. Rich honours ``NO_COLOR`` and pipes by itself."""
    from rich.console import Console

    # A log has no edge to wrap at; the width of a table in it is what reads well.
    width = None if sys.stderr.isatty() or "COLUMNS" in os.environ else 120
    return Console(stderr=True, highlight=False, soft_wrap=True, width=width)


def safe(text: str) -> str:
    """Return `text` with everything a terminal would obey made visible: controls, escapes, direction overrides.

    Model output, rows, labels and file names pass through here before they reach a screen. Newline and tab stay.
    """
    return "".join(
        character
        if character in "\n\t" or not (unicodedata.category(character) in ("Cc", "Cs") or character in _REORDERING)
        else f"\\x{ord(character):02x}"
        if ord(character) < 256
        else f"\\u{ord(character):04x}"
        for character in text
    )


def emit(text: str) -> None:
    """Write a result on stdout at once: harmless on a terminal, exactly as it is (UTF-8) into a pipe or file."""
    if sys.stdout.isatty():
        encoding = sys.stdout.encoding or "utf-8"
        sys.stdout.write(safe(text).encode(encoding, "backslashreplace").decode(encoding))
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode("utf-8"))
    sys.stdout.flush()


def show(*parts: RenderableType) -> None:
    """Write tables and lines on stdout as a result: plain text, as wide as the terminal, or as it needs in a pipe."""
    from rich.console import Console

    written = io.StringIO()
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 1000
    Console(file=written, width=width, color_system=None, highlight=False, soft_wrap=True).print(*parts, sep="\n")
    emit("".join(f"{line.rstrip()}\n" for line in written.getvalue().splitlines()))


def facts(rows: Iterable[tuple[str, str]]) -> Table:
    """Return facts as two columns: what it is, dim, and what there is to say of it."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(Text(safe(name)), Text(safe(value)))
    return table


def show_fitting(layouts: Sequence[Sequence[str]]) -> None:
    """Write a result on stdout in the first of several layouts that fits the terminal; in a pipe in the first."""
    from rich.console import Console

    from lorakit.cli.layouts import fitting

    width = Console(file=io.StringIO()).width if sys.stdout.isatty() or "COLUMNS" in os.environ else None
    emit("".join(f"{line}\n" for line in fitting(width, layouts)))


def say(text: str = "", style: str | None = None, wrap: bool = False) -> None:
    """Print one piece of prose on stderr, as text and never as markup.

    Args:
        text: What to print.
        style: Rich's name of a style.
        wrap: Break lines between words where a terminal ends; a path or a command in the text could be broken too.
    """
    soft = not (wrap and console().is_terminal)
    console().print(safe(text), style=style, markup=False, soft_wrap=soft)


def print_error(error: Exception) -> None:
    """Print what went wrong on stderr; the first line says it, the rest shows it."""
    from rich.text import Text

    console().print(Text.assemble(("error: ", "bold red"), safe(str(error))))
    sys.stderr.flush()
