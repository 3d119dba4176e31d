"""Documents of plain text files."""

from __future__ import annotations

from collections.abc import Iterator

from lorakit.data.decoding import ByteSource, inspect
from lorakit.data.settings import DataSettings
from lorakit.errors import DataError
from lorakit.types import Row


def plain_rows(source: ByteSource, settings: DataSettings, notes: list[str]) -> Iterator[Row]:
    r"""Yield a row ``{"text": document}`` for each document; its line is the document's first.

    Two or more blank lines separate documents; a file without such a gap is one document. Blank lines at the ends of a
    document are left out, and a newline is ``\n`` whatever the file has.

    Raises:
        DataError: The file holds no text.
    """
    file = inspect(source)
    notes.extend(file.notes)
    document: list[str] = []
    first = blank = 0
    for number, raw in file.lines():
        line = raw.removesuffix("\n").removesuffix("\r")
        if not line.strip():
            blank += 1
        else:
            if blank >= 2 and document:
                yield _row(document, source.name, first)
                document.clear()
            first = first if document else number
            blank = 0
        if document or line.strip():
            document.append(line)
    if not first:
        raise DataError(f"{source.name} is empty: it holds no text.")
    yield _row(document, source.name, first)


def _row(document: list[str], name: str, line: int) -> Row:
    while not document[-1].strip():
        document.pop()
    return Row({"text": "\n".join(document)}, name, line)
