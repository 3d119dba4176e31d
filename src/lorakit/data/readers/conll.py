"""Sentences of CoNLL files: a word and its tag on each line, a blank line behind each sentence."""

from __future__ import annotations

from collections.abc import Iterator

from lorakit.data.decoding import ByteSource, inspect
from lorakit.data.readers.faults import Faults, broken_line
from lorakit.data.settings import DataSettings
from lorakit.errors import DataError
from lorakit.types import Row

_DOCUMENT = "-DOCSTART-"
_CURE = "Mend the line, or skip such sentences and count them with --set data.broken=skip."


def conll_rows(source: ByteSource, settings: DataSettings, notes: list[str]) -> Iterator[Row]:
    """Yield a row ``{"tokens": [...], "tags": [...]}`` for each sentence; its line is that of its first word.

    A line is parted at tabs, or where it has none at other white space; the first column is the word, the last its tag.
    ``-DOCSTART-`` lines are left out (Tjong Kim Sang and De Meulder 2003, arXiv:cs/0306050).

    Raises:
        DataError: The file holds no sentence, or a line holds no tag or not as many columns as the first (unless
            `settings.broken` is ``skip``, which leaves out its sentence).
    """
    file = inspect(source)
    notes.extend(file.notes)
    faults = Faults(source.name, settings.broken)
    width: int | None = None
    words: list[list[str]] = []
    first, sound, empty = 0, True, True
    for number, raw in _closed(file.lines()):
        if not raw.strip():
            if words and sound:
                yield _row(words, source.name, first)
            words, sound = [], True
            continue
        columns = _columns(raw)
        if columns[0] == _DOCUMENT:
            continue
        empty = False
        first = number if not words else first
        words.append(columns)
        width = width or len(columns)
        problem = _problem(columns, width)
        if problem and sound:
            sound = False
            faults.meet(number, broken_line(source.name, number, None, problem, cure=_CURE))
    if empty:
        raise DataError(f"{source.name} is empty: it holds no sentence.")
    notes.extend(faults.notes())


def _closed(lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Yield all lines and a blank one, which ends the last sentence."""
    yield from lines
    yield 0, ""


def _columns(line: str) -> list[str]:
    return [column.strip() for column in line.strip("\r\n").split("\t")] if "\t" in line else line.split()


def _problem(columns: list[str], width: int) -> str | None:
    if len(columns) < 2:
        return f"a word and its tag are due, found one column ({columns[0][:30]!r})"
    if len(columns) != width:
        return f"{len(columns)} columns, but the first line has {width}"
    if not columns[0] or not columns[-1]:
        return f"the {'tag' if columns[0] else 'word'} is empty"
    return None


def _row(words: list[list[str]], name: str, line: int) -> Row:
    return Row({"tokens": [word for word, *_ in words], "tags": [tag for *_, tag in words]}, name, line)
