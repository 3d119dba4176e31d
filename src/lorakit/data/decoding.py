"""Bytes to text: which encoding a file is in, its lines, and a note on what was not plain UTF-8.

A file is read twice: a first cheap pass finds the encoding and the newlines, the second one gives the lines. Of one
that is streamed the first pass sees only the beginning. No byte is ever replaced by a guess.
"""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from lorakit.errors import DataError

LONGEST_LINE = 16 * 2**20
"""Characters of the longest line that is read; a longer one is a file that lost its newlines."""
LONGEST_TEXT = 2**30
"""Characters of the longest file that must be held whole (JSON that is not JSONL)."""

_CHUNK = 2**20
_BEGINNING = 16 * 2**20
"""Bytes of a streamed file that are looked at before its lines are read."""
_MARKS = (  # UTF-32 before UTF-16: the mark of one begins with that of the other.
    (codecs.BOM_UTF8, "utf-8-sig", "UTF-8 with a byte-order mark"),
    (codecs.BOM_UTF32_LE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF32_BE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16"),
)
_DISGUISES = {
    b"\x1f\x8b": "It is gzip data: rename it so that its name ends in .gz.",
    b"PK\x03\x04": "It is a zip archive, such as an Excel workbook: export the sheet as CSV UTF-8.",
    b"PAR1": "It is a Parquet file: rename it so that its name ends in .parquet.",
}
_NEWLINES = {"\r\n": "Windows newlines (CRLF)", "\r": "carriage returns in place of newlines"}


@dataclass(frozen=True, slots=True)
class ByteSource:
    """A file on disk, gzipped when its name ends in .gz, or bytes held in memory."""

    name: str
    """How messages and rows call it."""
    path: Path | None = None
    held: bytes = field(default=b"", repr=False)
    streamed: bool = False
    """Whether it may be too long to be read twice."""

    def open(self) -> BinaryIO:
        """Open the bytes, unpacked, at their start."""
        if self.path is None:
            return io.BytesIO(self.held)
        return cast(BinaryIO, gzip.open(self.path)) if self.path.suffix.lower() == ".gz" else self.path.open("rb")

    def stamp(self) -> tuple[int, ...]:
        """Return what differs as soon as somebody writes the file."""
        if self.path is None:
            return ()
        status = self.path.stat()
        return status.st_ino, status.st_size, status.st_mtime_ns


@dataclass(frozen=True, slots=True)
class TextFile:
    """Bytes whose encoding is known."""

    source: ByteSource
    encoding: str
    """Python's name of the codec."""
    notes: tuple[str, ...]
    """What was not plain UTF-8 with plain newlines, a sentence each."""
    stamp: tuple[int, ...]
    """The source's stamp before the first byte was read."""

    def lines(self) -> Iterator[tuple[int, str]]:
        r"""Yield each line's number, from 1, and the line with the newline it ends in, ``\n`` or ``\r\n``.

        Raises:
            DataError: A line is longer than LONGEST_LINE, or the file changed since its encoding was found.
        """
        with self._reading(), self._open() as stream:
            number = 0
            while line := stream.readline(LONGEST_LINE + 1):
                number += 1
                if len(line) > LONGEST_LINE:
                    raise DataError(
                        f"{self.source.name} line {number}: longer than {LONGEST_LINE:,} characters. "
                        "Has the file lost its newlines? Cut the row into smaller ones."
                    )
                yield number, line
            self._unchanged()

    def text(self) -> str:
        """Return the whole text.

        Raises:
            DataError: It is longer than LONGEST_TEXT, or the file changed since its encoding was found.
        """
        with self._reading(), self._open() as stream:
            text = stream.read(LONGEST_TEXT + 1)
            if len(text) > LONGEST_TEXT:
                raise DataError(
                    f"{self.source.name}: longer than {LONGEST_TEXT:,} characters, too long to be held whole. "
                    "Write it as JSONL, one object a line."
                )
            self._unchanged()
            return text

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with reporting(self.source.name):
            try:
                yield
            except UnicodeDecodeError as error:
                if not self.source.streamed:
                    raise
                raise DataError(
                    f"{self.source.name}: 0x{error.object[error.start]:02x} stands behind the first "
                    f"{_BEGINNING / 2**20:g} MB, and does not fit their encoding, {self.encoding}. Save the file as "
                    "UTF-8."
                ) from None

    def _open(self) -> io.TextIOWrapper:
        # newline="\n" neither translates nor breaks lines at a lone carriage return.
        return io.TextIOWrapper(self.source.open(), encoding=self.encoding, newline="\n")

    def _unchanged(self) -> None:
        if self.source.stamp() != self.stamp:
            raise _changed(self.source.name)


class _Undecodable(Exception):
    def __init__(self, line: int, byte: int, value: int) -> None:
        super().__init__(line, byte, value)
        self.line, self.byte, self.value = line, byte, value


def inspect(source: ByteSource) -> TextFile:
    """Find the encoding of `source`: UTF-8, one that a byte-order mark declares, or CP949 (which holds EUC-KR).

    CP949 is taken only where every byte decodes and at least a third of what is not ASCII turns out as the common
    Korean syllables of KS X 1001: the curly quotes of a Western file decode too, but into rare ones.

    Raises:
        DataError: The bytes are in another encoding, or are no text; names the line and the byte.
    """
    with reporting(source.name):
        stamp = source.stamp()
        with source.open() as stream:
            head = stream.read(4096)
        for mark, encoding, label in _MARKS:
            if head.startswith(mark):
                return _text_file(source, encoding, label, stamp)
        for magic, cure in _DISGUISES.items():
            if head.startswith(magic):
                raise DataError(f"{source.name} is not text. {cure}")
        if head.count(0) > len(head) // 5:
            raise DataError(
                f"{source.name}: many bytes are NUL, so it is binary, or UTF-16 without a byte-order mark. "
                "Save it as UTF-8."
            )
        try:
            return _text_file(source, "utf-8", "", stamp)
        except _Undecodable as undecodable:
            if _is_korean(source):
                return _text_file(source, "cp949", "CP949", stamp)
            raise _neither(source.name, undecodable) from None


@contextmanager
def reporting(name: str) -> Iterator[None]:
    """Turn the failures of reading `name` into a DataError."""
    try:
        yield
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(
            f"{name}: the gzip data is damaged or cut short ({error}). Fetch or pack the file again."
        ) from None
    except _Undecodable as error:
        raise DataError(
            f"{name} line {error.line}, byte {error.byte:,} of the file: 0x{error.value:02x} does not fit the encoding "
            "that the file's byte-order mark declares. Save the file as UTF-8."
        ) from None
    except UnicodeDecodeError:
        raise _changed(name) from None
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror or error}.") from None


def _text_file(source: ByteSource, encoding: str, label: str, stamp: tuple[int, ...]) -> TextFile:
    """Read the whole file once, of one that is streamed its beginning, so that every later reading of that succeeds."""
    newlines = io.IncrementalNewlineDecoder(None, translate=False)
    for text in _decoded(source, encoding):
        newlines.decode(text)  # type: ignore[arg-type]  # it takes text where it was given no decoder
    kinds = newlines.newlines
    notes = [f"{source.name}: read as {label}."] if label else []
    if isinstance(kinds, tuple):
        notes.append(f"{source.name}: mixed newlines ({', '.join(map(repr, kinds))}).")
    elif kinds in _NEWLINES:
        notes.append(f"{source.name}: {_NEWLINES[kinds]}.")
    return TextFile(source, encoding, tuple(notes), stamp)


def _decoded(source: ByteSource, encoding: str) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder(encoding)()
    line, offset = 1, 0
    with source.open() as stream:
        chunk = b"start"
        while chunk and not (source.streamed and offset >= _BEGINNING):
            chunk = stream.read(_CHUNK)
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                # error.object is what the decoder had kept back, and then the chunk.
                start = offset + len(chunk) - len(error.object) + error.start
                before = error.object[: error.start].count(b"\n")
                raise _Undecodable(line + before, start + 1, error.object[error.start]) from None
            yield text
            line += text.count("\n")
            offset += len(chunk)


def _is_korean(source: ByteSource) -> bool:
    counts: Counter[str] = Counter()
    try:
        for text in _decoded(source, "cp949"):
            counts.update(text)
    except _Undecodable:
        return False
    foreign = {character: count for character, count in counts.items() if not character.isascii()}
    common = sum(count for character, count in foreign.items() if _is_common_syllable(character))
    return 3 * common >= sum(foreign.values())


def _is_common_syllable(character: str) -> bool:
    # Bytes 0xB0A1 to 0xC8FE of EUC-KR are the 2,350 syllables of KS X 1001.
    encoded = character.encode("euc_kr", errors="ignore")
    return len(encoded) == 2 and 0xB0 <= encoded[0] <= 0xC8


def _neither(name: str, undecodable: _Undecodable) -> DataError:
    return DataError(
        f"{name} line {undecodable.line}, byte {undecodable.byte:,} of the file: 0x{undecodable.value:02x} is neither "
        "UTF-8 nor Korean CP949, and nothing is guessed. Save the file as UTF-8, for example with: "
        "iconv -f ENCODING -t UTF-8 FILE > NEW"
    )


def _changed(name: str) -> DataError:
    return DataError(f"{name} changed while it was being read. Start again when it is complete.")
