"""How a broken line is said, and what is done with it: stop, or skip and count."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Literal

from lorakit.errors import DataError

_WIDTH = 72


class Faults:
    """The broken lines of one file."""

    def __init__(self, name: str, policy: Literal["error", "skip"]) -> None:
        self.name = name
        self.policy = policy
        self.lines: list[int] = []

    def meet(self, line: int, error: DataError) -> None:
        """Raise `error`, or count it where the policy is to skip."""
        if self.policy == "error":
            raise error
        self.lines.append(line)

    def notes(self) -> list[str]:
        """Return a sentence with the count and the first few lines, or nothing."""
        if not self.lines:
            return []
        return [f"{self.name}: {counted(len(self.lines), 'broken line')} skipped ({first_lines(self.lines)})."]


SKIP = "Mend the line, or skip such lines and count them with --set data.broken=skip."


def broken_line(name: str, line: int, column: int | None, problem: str, text: str = "", cure: str = SKIP) -> DataError:
    """Return the error for one line: what is wrong, the line cut to fit, a caret, and what to do.

    Args:
        name: The file.
        line: From 1.
        column: In characters, from 1; None where the fault is the whole line.
        problem: With neither place nor full stop.
        text: The line itself, shown when a column is given.
        cure: What to do.
    """
    place = f"{name} line {line}" + (f", column {column}" if column is not None else "")
    shown = "" if column is None else _excerpt(text.rstrip("\r\n"), column) + "\n"
    return DataError(f"{place}: {problem}.\n{shown}Nothing was read or written. {cure}")


def counted(count: int, noun: str) -> str:
    """Return ``1 row`` or ``1,200 rows``."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def told(counts: Mapping[str, int], sentences: Mapping[str, tuple[str, str]]) -> list[str]:
    """Return ``3 rows longer than 64 tokens: left out`` for each count above 0; `sentences` holds noun and rest."""
    return [f"{counted(counts[name], noun)} {rest}" for name, (noun, rest) in sentences.items() if counts[name]]


def first_lines(lines: list[int], shown: int = 5) -> str:
    """Return ``line 3``, or ``lines 3, 9, 11, 12, 20 and 7 more``."""
    listed = ", ".join(f"{line:,}" for line in lines[:shown])
    more = f" and {len(lines) - shown:,} more" if len(lines) > shown else ""
    return f"line{'s' * (len(lines) > 1)} {listed}{more}"


def _excerpt(line: str, column: int) -> str:
    start = max(0, min(column - 1 - _WIDTH // 2, len(line) - _WIDTH))
    window = line[start : start + _WIDTH]
    shown = "".join(character if character.isprintable() else "·" for character in window)
    head = "…" if start else ""
    tail = "…" if start + _WIDTH < len(line) else ""
    before = head + shown[: column - 1 - start]
    # A Korean syllable is two columns wide, so the caret counts cells and not characters.
    cells = sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in before)
    return f"  {head}{shown}{tail}\n  {' ' * cells}^"
