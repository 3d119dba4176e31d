"""Bytes to text."""

from __future__ import annotations

import gzip

import pytest

from lorakit.data import decoding
from lorakit.data.decoding import ByteSource, inspect
from lorakit.errors import DataError

KOREAN = "첫째 줄입니다.\n둘째 줄, 서울은 수도이다.\n"


def text_and_notes(content: bytes, name: str = "rows.txt") -> tuple[str, tuple[str, ...]]:
    file = inspect(ByteSource(name, held=content))
    assert "".join(line for _, line in file.lines()) == file.text()
    return file.text(), file.notes


def test_plain_utf8_is_read_without_a_note():
    assert text_and_notes(KOREAN.encode()) == (KOREAN, ())


@pytest.mark.parametrize(
    ("codec", "label"),
    [
        ("utf-8-sig", "UTF-8 with a byte-order mark"),
        ("utf-16", "UTF-16"),
        ("utf-32", "UTF-32"),
        ("cp949", "CP949"),
        ("euc_kr", "CP949"),
    ],
)
def test_another_encoding_is_found_and_noted(codec, label):
    assert text_and_notes(KOREAN.encode(codec)) == (KOREAN, (f"rows.txt: read as {label}.",))


def test_syllables_outside_euc_kr_are_read_as_cp949():
    text = "똠방각하는 펲시콜라를 마신다"
    assert text_and_notes(text.encode("cp949"))[0] == text


@pytest.mark.parametrize(
    "content",
    [
        "we’ll can’t he’d I’m".encode("cp1252"),  # decodes as CP949, into rare syllables
        "café Adriatic".encode("latin-1"),
        "これは日本語の文章です。".encode("shift_jis"),
        "성공".encode() + b"\xff",
    ],
)
def test_what_is_neither_utf8_nor_korean_is_refused(content):
    with pytest.raises(DataError, match="neither UTF-8 nor Korean CP949"):
        inspect(ByteSource("rows.txt", held=content))


def test_the_message_names_the_line_and_byte_of_the_fault():
    content = b"one\ntwo\nth\xffree\n"
    with pytest.raises(DataError, match=r"rows\.txt line 3, byte 11 of the file: 0xff"):
        inspect(ByteSource("rows.txt", held=content))


@pytest.mark.parametrize("chunk", [1, 2, 3, 5])
def test_the_place_of_a_fault_does_not_depend_on_how_the_file_is_cut(monkeypatch, chunk):
    monkeypatch.setattr(decoding, "_CHUNK", chunk)
    content = "가나\n다".encode() + b"\xea\xb0\n"  # a syllable that lacks its last byte
    with pytest.raises(DataError, match=r"line 2, byte 11 of the file: 0xea"):
        inspect(ByteSource("rows.txt", held=content))


@pytest.mark.parametrize("chunk", [1, 2, 3, 5])
def test_windows_newlines_are_noted_however_the_file_is_cut(monkeypatch, chunk):
    monkeypatch.setattr(decoding, "_CHUNK", chunk)
    assert text_and_notes(b"a\r\nbc\r\nd\r\n")[1] == ("rows.txt: Windows newlines (CRLF).",)


def test_mixed_newlines_are_noted():
    assert "mixed newlines" in text_and_notes(b"a\r\nb\n")[1][0]


@pytest.mark.parametrize("separator", ["\u2028", "\x0b", "\x85", "\r"])
def test_only_a_newline_ends_a_line(separator):
    lines = list(inspect(ByteSource("rows.txt", held=f"a{separator}b\nc".encode())).lines())
    assert lines == [(1, f"a{separator}b\n"), (2, "c")]


def test_gzip_is_unpacked(tmp_path):
    path = tmp_path / "rows.txt.gz"
    path.write_bytes(gzip.compress(KOREAN.encode("cp949")))
    assert inspect(ByteSource("rows.txt.gz", path)).text() == KOREAN


PACKED = gzip.compress(KOREAN.encode() + bytes(range(32, 127)) * 3)


@pytest.mark.parametrize("damaged", [PACKED[:-9], b"no gzip at all", PACKED[:40] + b"\0" * 9 + PACKED[49:]])
def test_damaged_gzip_is_said(tmp_path, damaged):
    path = tmp_path / "rows.txt.gz"
    path.write_bytes(damaged)
    with pytest.raises(DataError, match="gzip data is damaged"):
        inspect(ByteSource("rows.txt.gz", path))


@pytest.mark.parametrize(
    ("content", "cure"),
    [
        (gzip.compress(b"text", mtime=0), r"ends in \.gz"),
        (b"PK\x03\x04\xff\xfe\xfd", "export the sheet as CSV"),
        ("plain".encode("utf-16-le"), "UTF-16 without a byte-order mark"),
        (b"\0" * 5000, "binary"),
    ],
)
def test_what_is_no_text_is_told_apart(content, cure):
    with pytest.raises(DataError, match=cure):
        inspect(ByteSource("rows.txt", held=content))


def test_a_byte_that_does_not_fit_the_mark_is_an_error():
    with pytest.raises(DataError, match=r"line 1, byte 5.*byte-order mark declares"):
        inspect(ByteSource("rows.txt", held=b"\xef\xbb\xbfa\xff"))


def test_a_line_beyond_the_limit_is_an_error_with_its_number(monkeypatch):
    monkeypatch.setattr(decoding, "LONGEST_LINE", 8)
    file = inspect(ByteSource("rows.txt", held=b"1234567\n123456789\n"))
    with pytest.raises(DataError, match=r"rows\.txt line 2: longer than 8 characters"):
        list(file.lines())


def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path):
    path = tmp_path / "rows.txt"
    path.write_text("one\ntwo\n")
    lines = inspect(ByteSource("rows.txt", path)).lines()
    next(lines)
    with path.open("a") as stream:
        stream.write("three\n")
    with pytest.raises(DataError, match="changed while it was being read"):
        list(lines)
