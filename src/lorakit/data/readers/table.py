"""Rows of CSV and TSV files. Every value stays the text it is: "007", "NA", "null" and "" are not interpreted."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from typing import Any

from lorakit.data.decoding import LONGEST_LINE, ByteSource, inspect
from lorakit.data.readers.faults import Faults, broken_line
from lorakit.data.settings import DataSettings
from lorakit.errors import DataError
from lorakit.types import Row

_NAMED = {",": "comma", "\t": "tab", ";": "semicolon", "|": "bar"}
_ENDLESS = ("unexpected end of data", "field larger than field limit")


def table_rows(source: ByteSource, settings: DataSettings, notes: list[str], delimiter: str) -> Iterator[Row]:
    r"""Yield a row for each record below the header; blank lines are none.

    Args:
        source: The file.
        settings: `quotes` says whether double quotes group a field (left out: with a comma yes, with a tab no);
            without a `header` the columns are called ``1``, ``2``, ``3``, …
        notes: Receives what the user should know.
        delimiter: ``,`` or ``\t``.

    Raises:
        DataError: The header has empty or doubled names or the wrong delimiter, or there is nothing below it; a record
            is ragged or badly quoted (unless `settings.broken` is ``skip``); a quote is never closed.
    """
    file = inspect(source)
    notes.extend(file.notes)
    quotes = delimiter == "," if settings.quotes is None else settings.quotes
    csv.field_size_limit(LONGEST_LINE)
    reader = csv.reader(
        (line for _, line in file.lines()),
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE,
        strict=True,
    )
    line, header = next(_records(reader, Faults(source.name, "error"), delimiter), (0, []))
    faults = Faults(source.name, settings.broken)
    records = _records(reader, faults, delimiter)
    if settings.header:
        _check_header(source.name, line, header, delimiter)
    else:
        records = chain([(line, header)] if header else [], records)
        header = [str(number) for number in range(1, len(header) + 1)]
    empty = True
    for line, record in records:
        empty = False
        if len(record) == len(header):
            yield Row(dict(zip(header, record, strict=True)), source.name, line)
        else:
            faults.meet(line, _ragged(source.name, line, record, header, delimiter, settings.header))
    if empty and not header:
        raise DataError(f"{source.name} is empty: it holds no rows.")
    if empty and not faults.lines:
        raise DataError(f"{source.name} holds only a header ({_listed(header)}) and no rows.")
    notes.extend(faults.notes())


def _records(reader: Any, faults: Faults, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each record with the physical line it begins on; a quoted field may hold newlines."""
    while True:
        line = reader.line_num + 1
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if str(error).startswith(_ENDLESS):
                # Where the row ends cannot be known, so skipping it would drop the rest of the file.
                raise DataError(
                    f"{faults.name} line {line}: a double quote opened in this row is never closed. Close it, write a "
                    "quote inside a field twice, or read quotes as plain text with --set data.quotes=false."
                ) from None
            faults.meet(line, broken_line(faults.name, line, None, _said(error, delimiter)))
            continue
        if record:
            yield line, record


def _check_header(name: str, line: int, header: list[str], delimiter: str) -> None:
    if not header:
        raise DataError(f"{name} is empty: it holds no rows.")
    where = f"{name} line {line}"
    doubled = [column for column, count in Counter(header).items() if count > 1]
    if doubled:
        raise DataError(
            f"{where}: the header names {_listed(doubled)} more than once ({_listed(header)}). "
            "Give each column a name of its own; if the first line is already data, say --set data.header=false."
        )
    if any(not column.strip() for column in header):
        raise DataError(
            f"{where}: the header has a column without a name ({_listed(header)}). Name it, or remove the column; "
            "if the first line is already data, say --set data.header=false."
        )
    other = next((sign for sign in "\t;|," if sign != delimiter and sign in header[0]), None)
    if len(header) == 1 and other is not None:
        suffix = {",": ".csv", "\t": ".tsv"}
        cure = f"rename it to {suffix[other]}" if other in suffix else f"save it with a {_NAMED[delimiter]} between"
        raise DataError(
            f"{where}: the header is one column, {_listed(header)}. It looks separated by {_NAMED[other]}s, "
            f"and {suffix[delimiter]} means {_NAMED[delimiter]}s: {cure}."
        )


def _ragged(name: str, line: int, record: list[str], header: list[str], delimiter: str, named: bool) -> DataError:
    fields = f"{len(record)} field{'s' * (len(record) != 1)}"
    hint = (
        f"; a field that holds a {_NAMED[delimiter]} or a newline must stand in double quotes"
        if len(record) > len(header)
        else ""
    )
    first = f"header has {len(header)} ({_listed(header)})" if named else f"first line has {len(header)}"
    return broken_line(name, line, None, f"{fields}, but the {first}{hint}")


def _said(error: csv.Error, delimiter: str) -> str:
    if "expected after" in str(error):
        return (
            f"text follows a closing double quote where a {_NAMED[delimiter]} is due; a quote inside a quoted field is "
            "written twice (or read quotes as plain text with --set data.quotes=false)"
        )
    if "new-line character" in str(error):
        return "a carriage return stands alone in an unquoted field; save the file with ordinary newlines"
    return str(error)


def _listed(columns: list[str]) -> str:
    cut = [column if len(column) <= 30 else column[:29] + "…" for column in columns[:8]]
    return ", ".join(map(repr, cut)) + (f" and {len(columns) - 8} more" if len(columns) > 8 else "")
