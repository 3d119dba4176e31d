"""Rows from files, folders, standard input, the Hub and what ships with lorakit, all at once or as a stream.

What a file is follows from its name (paths.KINDS). Two things have no such name and are known by their first line:

* Standard input: ``{`` begins JSONL, ``[`` begins JSON; a first line that, split at tabs or else at commas, holds a
  column lorakit knows or data.columns names, or nothing but names, begins a table; everything else is plain text.
* A .txt or .md file is a table when its first line, split so, holds every column that data.columns names; or when
  data.header is false, which only tables can lack.
"""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from lorakit.data.decoding import ByteSource, inspect
from lorakit.data.formats import KNOWN_COLUMNS
from lorakit.data.paths import (
    HUB,
    STANDARD_INPUT,
    as_source,
    files_of,
    kind_of,
    locate,
    refuse_training_file,
    shown,
)
from lorakit.data.readers.conll import conll_rows
from lorakit.data.readers.faults import Faults, broken_line, counted, first_lines
from lorakit.data.readers.hub import hub_rows
from lorakit.data.readers.json_text import json_rows, jsonl_rows
from lorakit.data.readers.parquet import parquet_rows
from lorakit.data.readers.plain import plain_rows
from lorakit.data.readers.table import table_rows
from lorakit.data.settings import DataSettings, SourceSettings
from lorakit.errors import DataError
from lorakit.types import Row

_TRACES = {
    "U+FFFD, which stands where text was lost earlier,": re.compile("\ufffd"),
    "control characters": re.compile("[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]"),
}


@dataclass(slots=True)
class Reading:
    """All rows of a source."""

    rows: list[Row]
    notes: list[str] = field(default_factory=list)
    """What was decoded, skipped, left out or read several times, a sentence each."""


Source = str | SourceSettings | Sequence[str | SourceSettings]


def read(source: Source, settings: DataSettings, base_dir: Path | None = None, seed: int = 0) -> Reading:
    """Read every row of a source, or of several.

    A weight w repeats each row of its source floor(w) times; the fraction that is left is a seeded sample of the rows,
    in reading order.

    Args:
        source: What `DataSettings.train` takes.
        settings: How odd lines, quotes and encodings are taken.
        base_dir: Where relative paths begin; left out: the working directory.
        seed: Draws the fractions.

    Raises:
        DataError: Something cannot be read, or the evaluation rows are training rows.
    """
    refuse_training_file(settings, base_dir)
    reading = Reading([])
    for number, one in enumerate(_each(source)):
        found = list(_rows(one, settings, base_dir, reading.notes, streaming=False))
        weighted = _weighted(found, one.weight, random.Random(f"{seed} {number}"))
        if len(weighted) != len(found):
            reading.notes.append(
                f"{shown(one.path)}: weight {one.weight:g} makes {counted(len(weighted), 'row')} of {len(found):,}."
            )
        reading.rows += weighted
    if not reading.rows:
        raise DataError("the weights of all sources are so small that no row is left. Raise data.train weights.")
    return reading


def stream(
    source: Source,
    settings: DataSettings,
    base_dir: Path | None = None,
    seed: int = 0,
    notes: list[str] | None = None,
) -> Iterator[Row]:
    """Yield rows one at a time, holding none (of standard input: all).

    One source is read once through. Of several, each row's source is drawn with a probability proportional to its
    weight; one that ends begins again, and the stream ends when each has been read through once.

    Args:
        source: What `DataSettings.train` takes.
        settings: How odd lines, quotes and encodings are taken.
        base_dir: Where relative paths begin; left out: the working directory.
        seed: Draws the sources; give each epoch another one.
        notes: Receives what the user should know, as it is met.

    Raises:
        DataError: On the way, as for `read`.
    """
    refuse_training_file(settings, base_dir)
    sources = _each(source)
    first_notes = notes if notes is not None else []
    streams = [_rows(one, settings, base_dir, first_notes, streaming=True) for one in sources]
    if len(sources) == 1:
        yield from streams[0]
        return
    draw = random.Random(f"{seed} stream")
    unread = set(range(len(sources)))
    weights = [one.weight for one in sources]
    while unread:
        (number,) = draw.choices(range(len(sources)), weights)
        row = next(streams[number], None)
        if row is None:
            unread.discard(number)
            streams[number] = _rows(sources[number], settings, base_dir, [], streaming=True)
        else:
            yield row


def _each(source: Source) -> list[SourceSettings]:
    several = [source] if isinstance(source, (str, SourceSettings)) else list(source)
    if not several:
        raise DataError("data.train is an empty list. Name at least one file.")
    return [as_source(one) for one in several]


def _weighted(rows: list[Row], weight: float, draw: random.Random) -> list[Row]:
    whole = int(weight)
    drawn = sorted(draw.sample(range(len(rows)), round((weight - whole) * len(rows))))
    return rows * whole + [rows[number] for number in drawn]


def _rows(
    source: SourceSettings, settings: DataSettings, base_dir: Path | None, notes: list[str], streaming: bool
) -> Iterator[Row]:
    """Yield the sound rows of one source; it has at least one, or an error says so."""
    if source.path.startswith(HUB):
        yield from _sound(hub_rows(source, streaming), source.path, settings, notes)
        return
    if source.path == STANDARD_INPUT:
        files = [ByteSource("standard input", held=_standard_input())]
    else:
        files = [
            ByteSource(name, path, streamed=streaming) for name, path in files_of(locate(source.path, base_dir), notes)
        ]
    for file in files:
        yield from _sound(_read_file(file, settings, notes), file.name, settings, notes)


def _read_file(file: ByteSource, settings: DataSettings, notes: list[str]) -> Iterator[Row]:
    kind = _kind_of_input(file, settings, notes) if file.path is None else kind_of(file.path)
    if kind in (".txt", ".md") and file.path is not None:
        kind = _kind_of_text(file, settings, notes)
    match kind:
        case ".jsonl" | ".ndjson":
            return jsonl_rows(file, settings, notes)
        case ".json":
            return json_rows(file, settings, notes)
        case ".csv":
            return table_rows(file, settings, notes, ",")
        case ".tsv":
            return table_rows(file, settings, notes, "\t")
        case ".conll" | ".bio" | ".iob":
            return conll_rows(file, settings, notes)
        case ".parquet":
            return parquet_rows(file, settings, notes)
        case _:
            return plain_rows(file, settings, notes)


def _kind_of_input(file: ByteSource, settings: DataSettings, notes: list[str]) -> str:
    line = _first_line(file)
    known = KNOWN_COLUMNS | set(settings.columns.values())

    def is_header(columns: set[str]) -> bool:
        return bool(known & columns) or (len(columns) > 1 and all(map(str.isidentifier, columns)))

    starts = {"{": ".jsonl", "[": ".json"}
    bare = None if settings.header else ".tsv" if "\t" in line else ".csv"
    kind = starts.get(line.lstrip()[:1]) or bare or _table_kind(line, is_header) or ".txt"
    called = "plain text" if kind == ".txt" else kind[1:].upper()
    notes.append(f"{file.name}: read as {called}, by its first line.")
    return kind


def _kind_of_text(file: ByteSource, settings: DataSettings, notes: list[str]) -> str:
    line = _first_line(file)
    if not settings.header:
        return ".tsv" if "\t" in line else ".csv"
    names = set(settings.columns.values())
    kind = _table_kind(line, names.issubset) if names else None
    if kind is not None:
        notes.append(f"{file.name}: read as {kind[1:].upper()}, as its first line holds what data.columns names.")
        return kind
    tabs = {line.count("\t") for _, line in islice(inspect(file).lines(), 5)}
    if len(tabs) == 1 and tabs != {0}:
        notes.append(
            f"{file.name}: read as plain text, though it looks like a table with tabs. To read it as one, "
            "say which column is which with data.columns, or rename it to .tsv."
        )
    return ".txt"


def _table_kind(line: str, is_header: Callable[[set[str]], bool]) -> str | None:
    """Return the kind of table whose header `line` is, or None."""
    for delimiter, kind in (("\t", ".tsv"), (",", ".csv")):
        if is_header({column.strip('"') for column in line.rstrip("\r\n").split(delimiter)}):
            return kind
    return None


def _first_line(file: ByteSource) -> str:
    return next((line for _, line in inspect(file).lines() if line.strip()), "")


def _standard_input() -> bytes:
    if sys.stdin is None or sys.stdin.isatty():
        raise DataError("'-' is standard input, and nothing is piped into it. Pipe rows in, or give a file.")
    return _held(sys.stdin.buffer)


@lru_cache(maxsize=1)
def _held(stream: BinaryIO) -> bytes:
    # A pipe is read once; later epochs of a stream read what is held.
    return stream.read()


def _sound(rows: Iterator[Row], name: str, settings: DataSettings, notes: list[str]) -> Iterator[Row]:
    """Pass on rows whose text can be encoded and written again; count those with traces of an earlier accident."""
    faults = Faults(name, settings.broken)
    odd: dict[str, list[int]] = {what: [] for what in _TRACES}
    empty = True
    for row in rows:
        empty = False
        texts = list(_texts(row.fields))
        fault = next(filter(None, map(_unsound, texts)), None)
        if fault:
            faults.meet(row.line, broken_line(name, row.line, None, fault))
            continue
        for what, pattern in _TRACES.items():
            if any(map(pattern.search, texts)):
                odd[what].append(row.line)
        yield row
    if empty:
        raise DataError(f"{name} holds no row that can be read.")
    notes.extend(faults.notes())
    for what, lines in odd.items():
        if lines:
            notes.append(f"{name}: {what} in {counted(len(lines), 'row')} ({first_lines(lines)}).")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, member in value.items():
            yield key
            yield from _texts(member)
    elif isinstance(value, list):
        for member in value:
            yield from _texts(member)


def _unsound(text: str) -> str | None:
    if "\0" in text:
        return "the row holds a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"the row holds half a character, the lone surrogate U+{ord(text[error.start]):04X}"
    return None
