"""The two streams of the screen: results on stdout, everything else on stderr; and text that cannot harm a terminal."""

from __future__ import annotations

import io
import os
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Literal, TextIO

from lorakit.cli import layouts

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

ACCENT = "cyan"
"""The one accent colour."""

_REORDERING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@cache
def console() -> Console:
    """Return the console on stderr: progress, tables, prose."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, emoji=False, soft_wrap=True, color_system=styles())


def styles() -> Literal["auto"] | None:
    """Return what Rich styles text with: what the terminal can do, in a pipe nothing.

    Under ``NO_COLOR`` (https://no-color.org) nothing either: bold and dim would be escapes as well.
    """
    return None if os.environ.get("NO_COLOR") else "auto"


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
    width = terminal_width(sys.stdout) if sys.stdout.isatty() else None
    emit("".join(f"{line}\n" for line in layouts.lines(*parts, width=width)))


def tell(*parts: RenderableType) -> None:
    """Write tables and lines on stderr: styled and as wide as the terminal, or plain and as wide as it needs in a log.

    A log has no edge to wrap at, whatever ``COLUMNS`` says: what is one line stays one that can be searched and copied.
    """
    if console().is_terminal:
        console().print(*parts, sep="\n")
    else:
        say("\n".join(layouts.lines(*parts)))


def terminal_width(stream: TextIO) -> int | None:
    """Return the columns of the terminal behind `stream`, or None where there is an edge nowhere: in a pipe or file.

    ``COLUMNS`` stands above both, so that what is laid out in several ways can be had as narrow as it has to be.
    """
    from rich.console import Console

    return Console(file=io.StringIO()).width if stream.isatty() or "COLUMNS" in os.environ else None


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


def show_fitting(ways: Sequence[Sequence[str]]) -> None:
    """Write a result on stdout in the first of several layouts that fits the terminal; in a pipe in the first."""
    emit("".join(f"{line}\n" for line in layouts.fitting(terminal_width(sys.stdout), ways)))


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
