"""Every way a file of rows can be broken is said with file, line and cure, or read as it is; never half."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from lorakit.data.settings import DataSettings
from lorakit.data.sources import read, stream
from lorakit.errors import DataError

GOOD = b'{"text": "good"}\n'


def written(folder: Path, name: str, content: bytes) -> str:
    (folder / name).write_bytes(content)
    return str(folder / name)


def error_of(path: str, **options) -> str:
    wanted = DataSettings(train=path, **options)
    with pytest.raises(DataError) as read_error:
        read(path, wanted)
    with pytest.raises(DataError) as stream_error:
        list(stream(path, wanted))
    assert str(read_error.value) == str(stream_error.value)
    return str(read_error.value)


def test_the_message_shows_the_line_with_a_caret_and_the_cure(tmp_path):
    path = written(tmp_path, "broken.jsonl", b'{"prompt":"a"}\n{"prompt":"a", oops}\n')
    assert error_of(path) == (
        "broken.jsonl line 2, column 16: expected a quoted name, found `oops`.\n"
        '  {"prompt":"a", oops}\n'
        "                 ^\n"
        "Nothing was read or written. "
        "Mend the line, or skip such lines and count them with --set data.broken=skip."
    )


def test_the_caret_stands_under_the_place_where_letters_are_wide(tmp_path):
    shown = error_of(written(tmp_path, "rows.jsonl", '{"질문": 나}'.encode())).splitlines()
    assert shown[0].startswith("rows.jsonl line 1, column 8: expected a value, found `나`")
    # Two columns of margin, seven characters before the place, two of them two columns wide.
    assert shown[2].index("^") == 2 + 7 + 2


def test_a_long_line_is_cut_to_fit_around_the_place(tmp_path):
    line = json.dumps({"text": "x" * 500})[:-1] + " oops " + "y" * 500
    shown = error_of(written(tmp_path, "rows.jsonl", line.encode())).splitlines()
    assert max(map(len, shown[1:3])) < 80
    assert shown[1][shown[2].index("^") :].startswith("oops")


BROKEN_LINES = [
    (b"{", "expected a quoted name, found the end of the line"),
    (b'{"text": "a",}', "expected a quoted name, found `}`|a comma stands before the closing bracket"),
    (b'{"text": "a"', "expected a comma or the closing bracket, found the end of the line"),
    (b'{"text" "a"}', 'expected a colon, found `"`'),
    (b'{"text": }', "expected a value, found `}`"),
    (b"{'text': 'a'}", "expected a quoted name, found `'`"),
    (b'{"text": "a"} {"text": "b"}', "expected the end, found `{`"),
    (b'{"text": "a', "this string has no closing quote"),
    (b'{"text": "a\tb"}', "a raw control character in a string"),
    (rb'{"text": "\x"}', "this escape does not exist"),
    (rb'{"text": "\u12"}', "four hexadecimal digits"),
    (b'{"text": NaN}', "NaN is not JSON"),
    (b'{"text": [1, -Infinity]}', "-Infinity is not JSON"),
    (b'{"text": 1e999}', "the number 1e999 is too large to be held"),
    (b'{"text": ' + b"9" * 5000 + b"}", "is too large to be held"),
    (b'{"text": "a", "text": "b"}', r'the name "text" stands twice'),
    (b'{"t": {"u": 1, "\\u0075": 2}}', r"stands twice"),
    (b"oops", "expected a value, found `oops`"),
    (b"[" * 100_000, "nested too deeply"),
    (b'["a"]', "expected an object such as .* found a list"),
    (b'"a"', "found a string"),
    (b"7", "found a number"),
    (b"null", "found null"),
    (rb'{"text": "\ud800"}', r"the lone surrogate U\+D800"),
    (rb'{"\udfff": "a"}', r"the lone surrogate U\+DFFF"),
    (rb'{"text": ["\u0000"]}', "holds a NUL character"),
    (b'{"text": "\0"}', "a raw control character in a string"),
]


@pytest.mark.parametrize(("line", "problem"), BROKEN_LINES)
def test_a_broken_line_of_jsonl_is_said_with_its_number(tmp_path, line, problem):
    path = written(tmp_path, "rows.jsonl", GOOD + b"\n" + line + b"\r\n" + GOOD)
    message = error_of(path)
    assert message.startswith("rows.jsonl line 3")
    with pytest.raises(DataError, match=problem):
        read(path, DataSettings(train=path))


@pytest.mark.parametrize(("line", "problem"), BROKEN_LINES)
def test_a_broken_line_of_jsonl_can_be_skipped_and_is_counted(tmp_path, line, problem):
    path = written(tmp_path, "rows.jsonl", GOOD + line + b"\n" + GOOD)
    reading = read(path, DataSettings(train=path, broken="skip"))
    assert [row.line for row in reading.rows] == [1, 3]
    assert reading.notes == ["rows.jsonl: 1 broken line skipped (line 2)."]


@pytest.mark.parametrize(
    ("line", "column"),
    [
        (b'{"a": {"b": 1}, "b": 2, "a": 3}', 25),
        (b'{"s": "NaN {[", "t": NaN}', 22),
        (b'{"n": -1, "t": 2, "u": 1e999}', 24),
    ],
)
def test_the_column_of_a_refused_value_is_its_own(tmp_path, line, column):
    assert f"line 1, column {column}:" in error_of(written(tmp_path, "rows.jsonl", line))


def test_many_skipped_lines_are_counted_with_the_first_few(tmp_path):
    path = written(tmp_path, "rows.jsonl", GOOD + b"oops\n" * 1200)
    notes = read(path, DataSettings(train=path, broken="skip")).notes
    assert notes == ["rows.jsonl: 1,200 broken lines skipped (lines 2, 3, 4, 5, 6 and 1,195 more)."]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'[{"text": "a"},\n {"text": oops}]', r"rows\.json line 2, column 11: expected a value, found `oops`"),
        (b'[{"text": "a"},\n "b"]', r"rows\.json line 2: expected an object"),
        (b'[{"text": "a"}', "expected a comma or the closing bracket, found the end of the"),
        (b"7", "holds one value, and rows are a list of objects"),
        (b'"[]"', "holds one value, and rows are a list of objects"),
        (b"{}", "found none"),
        (b"[]", "holds no row"),
        (b" \n", "is empty"),
        (b'{"train": [{"a": 1}], "test": [{"a": 2}]}', "found several lists of objects \\('train', 'test'\\)"),
        (b'{"train": [["a", "b"]]}', r"found none \(its names: 'train'\)"),
    ],
)
def test_a_broken_json_file_is_said(tmp_path, content, problem):
    path = written(tmp_path, "rows.json", content)
    with pytest.raises(DataError, match=problem):
        read(path, DataSettings(train=path))


def test_skipping_is_not_proposed_for_json_that_is_read_whole(tmp_path):
    assert "broken=skip" not in error_of(written(tmp_path, "rows.json", b'[{"text": oops}]'))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"text,label\n", r"holds only a header \('text', 'label'\)"),
        (b"text,text\na,b\n", r"line 1: the header names 'text' more than once"),
        (b"text,\na,b\n", "a column without a name"),
        (b"text;label\na;b\n", r"one column, 'text;label'. It looks separated by semicolons.*save it with a comma"),
        (b"text\tlabel\na\tb\n", r"It looks separated by tabs.*rename it to \.tsv"),
        (b'text,label\n"one\ntwo",x\nalone\n', r"rows\.csv line 4: 1 field, but the header has 2"),
        (b"text,label\na,b,c\n", r"line 2: 3 fields.*a field that holds a comma"),
        (b'text,label\na,b\n"open,c\nd,e\n', r"line 3: a double quote opened in this row is never closed"),
        (b'text,label\n"a" b,c\n', r"line 2: text follows a closing double quote"),
        (b"text,label\na,b\rc,d\n", r"line 2: a carriage return stands alone"),
        (b"text,label\na,b\0\n", r"line 2: the row holds a NUL character"),
    ],
)
def test_a_broken_csv_file_is_said_with_the_physical_line(tmp_path, content, problem):
    path = written(tmp_path, "rows.csv", content)
    error_of(path)
    with pytest.raises(DataError, match=problem):
        read(path, DataSettings(train=path))


@pytest.mark.parametrize("record", [b"alone\n", b'"a" b,c\n', b"a,b,c\n", b"a,b\0\n"])
def test_a_broken_record_of_csv_can_be_skipped_and_is_counted(tmp_path, record):
    path = written(tmp_path, "rows.csv", b'text,label\n"one\ntwo",x\n' + record + b"good,x\n")
    reading = read(path, DataSettings(train=path, broken="skip"))
    assert [row.line for row in reading.rows] == [2, 5]
    assert "rows.csv: 1 broken line skipped (line 4)." in reading.notes


def test_an_open_quote_is_never_skipped_as_it_would_swallow_the_rest(tmp_path):
    message = error_of(written(tmp_path, "rows.csv", b'text,label\n"open,c\nd,e\n'), broken="skip")
    assert "never closed" in message


def test_a_broken_header_is_never_skipped(tmp_path):
    assert "line 1" in error_of(written(tmp_path, "rows.csv", b'"a" b,c\nd,e\n'), broken="skip")


@pytest.mark.parametrize(
    "name", ["rows.jsonl", "rows.ndjson", "rows.json", "rows.csv", "rows.tsv", "rows.txt", "rows.parquet"]
)
def test_an_empty_file_is_an_error_that_names_it(tmp_path, name):
    assert name in error_of(written(tmp_path, name, b""))
    assert name in error_of(written(tmp_path, name + ".gz", gzip.compress(b"")))


def test_a_damaged_parquet_file_is_said(tmp_path):
    assert "cannot be read as Parquet" in error_of(written(tmp_path, "rows.parquet", b"PAR1 and nothing more PAR1"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rows.jsnl", r"does not exist. Did you mean 'rows\.jsonl'\?"),
        ("no/rows.jsonl", "and neither does the folder"),
        ("?.md", "Patterns are not expanded"),
        ("org/name", r"On the Hub it would be hf://org/name"),
        ("picture.png", "what kind of file this is does not follow from its name"),
        ("empty", "holds no file that can be read"),
        ("pipe.jsonl", "is a pipe or a device"),
        ("rows.jsonl/more", "does not exist"),
        ("a\0b.jsonl", r"a\\x00b\.jsonl does not exist"),
        ("x" * 300 + ".jsonl", "cannot be read: File name too long"),
    ],
)
def test_a_source_that_is_no_readable_file_is_said(tmp_path, name, message):
    written(tmp_path, "rows.jsonl", GOOD)
    written(tmp_path, "picture.png", b"")
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(DataError, match=message):
        read(name, DataSettings(train=name), base_dir=tmp_path)


def test_an_empty_name_is_not_the_working_folder(tmp_path):
    with pytest.raises(DataError, match="cannot name a source"):
        read("", DataSettings(train=""), base_dir=tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_said(tmp_path):
    path = written(tmp_path, "rows.jsonl", GOOD)
    os.chmod(path, 0)
    assert "permission denied" in error_of(path).lower()


def test_lost_and_control_characters_are_noted_and_kept(tmp_path):
    path = written(tmp_path, "rows.jsonl", '{"text": "a\ufffdb"}\n{"text": "\\u001b[31m"}\n'.encode())
    reading = read(path, DataSettings(train=path))
    assert [row.fields["text"] for row in reading.rows] == ["a\ufffdb", "\x1b[31m"]
    assert reading.notes == [
        "rows.jsonl: U+FFFD, which stands where text was lost earlier, in 1 row (line 1).",
        "rows.jsonl: control characters in 1 row (line 2).",
    ]


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + GOOD,
        GOOD.replace(b"\n", b"\r\n"),
        GOOD.rstrip(),
        b"\n\n" + GOOD + b"  \n",
        GOOD.decode().encode("utf-16"),
    ],
)
def test_what_is_only_unusual_is_read(tmp_path, content):
    path = written(tmp_path, "rows.jsonl", content)
    assert [row.fields for row in read(path, DataSettings(train=path)).rows] == [{"text": "good"}]
