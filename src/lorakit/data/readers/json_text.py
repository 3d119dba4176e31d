"""Rows of JSONL and JSON files. Strings stay strings; what JSON leaves open (doubled names, NaN) is refused."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from lorakit.data.decoding import ByteSource, TextFile, inspect
from lorakit.data.readers.articles import is_article, questions
from lorakit.data.readers.faults import SKIP, Faults, broken_line
from lorakit.data.settings import DataSettings
from lorakit.errors import DataError
from lorakit.types import Row

_EXPECTED = {
    "Expecting property name enclosed in double quotes": "expected a quoted name",
    "Expecting value": "expected a value",
    "Expecting ',' delimiter": "expected a comma or the closing bracket",
    "Expecting ':' delimiter": "expected a colon",
    "Extra data": "expected the end",
}
_WRONG = {
    "Unterminated string starting at": "this string has no closing quote",
    "Invalid control character at": r"a raw control character in a string; write it as an escape such as \n or \t",
    "Invalid \\escape": r"this escape does not exist; a backslash itself is written \\",
    # From Python 3.13 on; before it, the bracket is what was not expected.
    "Illegal trailing comma before end of object": "a comma stands before the closing bracket",
    "Illegal trailing comma before end of array": "a comma stands before the closing bracket",
    "Invalid \\uXXXX escape": r"\u needs four hexadecimal digits",
}
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')
_COLON = re.compile(r"\s*:")
_MOST_DIGITS = 4300  # of an integer that Python reads


class _Refused(Exception):
    """A value that is valid JSON to the parser and still not taken."""


def jsonl_rows(source: ByteSource, settings: DataSettings, notes: list[str]) -> Iterator[Row]:
    """Yield a row for each line that is not blank.

    Raises:
        DataError: A line is no JSON object, unless `settings.broken` is ``skip``.
    """
    yield from _lines(inspect(source), settings, notes)


def json_rows(source: ByteSource, settings: DataSettings, notes: list[str]) -> Iterator[Row]:
    """Yield a row for each object of a list, or of the one list of objects in an object such as ``{"data": [...]}``.

    Objects that are articles of SQuAD yield a row for each of their questions, with the line of the article. A file
    that holds one object a line is read as JSONL, whatever its name says.

    Raises:
        DataError: The file is no JSON, or holds no list of objects, or several.
    """
    file = inspect(source)
    text = file.text()
    if _is_jsonl(text):
        notes.append(f"{source.name}: one object a line, read as JSONL.")
        yield from _lines(file, settings, notes)
        return
    notes.extend(file.notes)
    if not text.strip():
        raise DataError(f"{source.name} is empty: it holds no rows.")
    value = parse(text, source.name, cure="Mend it, or write JSONL, where broken lines can be skipped.")
    start = 0
    if isinstance(value, dict):
        key = _only_list(value, source.name)
        value, start = value[key], dict(_members(text))[key]
    if not isinstance(value, list):
        raise DataError(f"{source.name} holds one value, and rows are a list of objects, or JSONL.")
    faults = Faults(source.name, settings.broken)
    line, position = 1, 0
    for fields, place in zip(value, _elements(text, text.index("[", start)), strict=True):
        line += text.count("\n", position, place)
        position = place
        if isinstance(fields, dict) and is_article(fields):
            yield from _questions(fields, source.name, line, faults)
        elif isinstance(fields, dict):
            yield Row(fields, source.name, line)
        else:
            faults.meet(line, _not_an_object(source.name, line, fields))
    notes.extend(faults.notes())


def _questions(article: dict[str, Any], name: str, line: int, faults: Faults) -> Iterator[Row]:
    try:
        yield from [Row(fields, name, line) for fields in questions(article)]
    except DataError as error:
        faults.meet(line, broken_line(name, line, None, str(error)))


def parse(text: str, name: str, first_line: int = 1, cure: str = SKIP) -> Any:
    """Return the JSON value of `text`.

    Args:
        text: One JSON value, with white space around it or none.
        name: The file, for messages.
        first_line: Line of the file that `text` begins with, from 1.
        cure: What the message says to do.

    Raises:
        DataError: Names line and column, and shows the line.
    """
    try:
        return json.loads(
            text, object_pairs_hook=_unique, parse_constant=_refuse, parse_int=_integer, parse_float=_number
        )
    except json.JSONDecodeError as error:
        position, problem = error.pos, _said(error, text)
    except _Refused:
        position, problem = _refused_place(text)
    except RecursionError:
        raise broken_line(name, first_line, None, "brackets are nested too deeply to be read", "", cure) from None
    begin = text.rfind("\n", 0, position) + 1
    line = first_line + text.count("\n", 0, position)
    raise broken_line(name, line, position - begin + 1, problem, text[begin:].split("\n", 1)[0], cure)


def _lines(file: TextFile, settings: DataSettings, notes: list[str]) -> Iterator[Row]:
    name = file.source.name
    notes.extend(file.notes)
    faults = Faults(name, settings.broken)
    for number, line in file.lines():
        if not line.strip():
            continue
        try:
            fields = parse(line.rstrip("\r\n"), name, number)
            if not isinstance(fields, dict):
                raise _not_an_object(name, number, fields)
        except DataError as error:
            faults.meet(number, error)
            continue
        yield Row(fields, name, number)
    notes.extend(faults.notes())


def _is_jsonl(text: str) -> bool:
    first, _, rest = text.strip().partition("\n")
    return first.startswith("{") and first.rstrip().endswith("}") and rest.lstrip().startswith("{")


def _only_list(value: dict[str, Any], name: str) -> str:
    """Return the one key under which rows stand."""
    lists = [key for key, member in value.items() if isinstance(member, list) and member]
    rows = [key for key in lists if all(isinstance(element, dict) for element in value[key])]
    if len(rows) == 1:
        return rows[0]
    found = (
        f"several lists of objects ({', '.join(map(repr, rows[:5]))})" if rows else f"none (its names: {_names(value)})"
    )
    raise DataError(
        f"{name} is one object, and rows are looked for in the list of objects it holds; found {found}. "
        "Write the rows as one list, or as JSONL with one object a line."
    )


def _names(value: dict[str, Any]) -> str:
    listed = ", ".join(repr(key) for key in list(value)[:8])
    return (listed or "none") + ("…" if len(value) > 8 else "")


def _elements(text: str, start: int) -> Iterator[int]:
    """Yield where each element begins, of a list that is known to be valid and begins at `start`."""
    scan = json.JSONDecoder().raw_decode
    position = _after(r"\s*", text, start + 1)
    while text[position] != "]":
        yield position
        position = _after(r"[\s,]*", text, scan(text, position)[1])


def _members(text: str) -> Iterator[tuple[str, int]]:
    """Yield each name, and where its value begins, of a text that is known to be one valid object."""
    scan = json.JSONDecoder().raw_decode
    position = _after(r"\s*", text, text.index("{") + 1)
    while text[position] != "}":
        key, end = scan(text, position)
        value = _after(r"[\s:]*", text, end)
        yield key, value
        position = _after(r"[\s,]*", text, scan(text, value)[1])


def _after(pattern: str, text: str, position: int) -> int:
    match = re.compile(pattern).match(text, position)
    return match.end() if match else position


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise _Refused
    return fields


def _refuse(literal: str) -> NoReturn:
    raise _Refused


def _integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise _Refused
    return int(digits)


def _number(digits: str) -> float:
    if math.isinf(float(digits)):
        raise _Refused
    return float(digits)


def _refused_place(text: str) -> tuple[int, str]:
    """Find the first value that one of the hooks refused; up to there the text is valid JSON."""
    open_names: list[set[str]] = []
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token in "{[":
            open_names.append(set())
        elif token in "}]":
            open_names.pop()
        elif token.startswith('"'):
            if _COLON.match(text, match.end()):
                key = json.loads(token)
                if key in open_names[-1]:
                    return match.start(), f"the name {_cut(token)} stands twice in one object"
                open_names[-1].add(key)
        elif token.lstrip("-") in ("NaN", "Infinity"):
            return match.start(), f"{token} is not JSON; write null, or text in quotes"
        elif token.lstrip("-")[0].isdigit() and (len(token) > _MOST_DIGITS or math.isinf(float(token))):
            return match.start(), f"the number {_cut(token)} is too large to be held; write it in quotes"
    raise AssertionError("a hook refused a value that the walk does not find")


def _said(error: json.JSONDecodeError, text: str) -> str:
    if error.msg in _EXPECTED:
        return f"{_EXPECTED[error.msg]}, found {_found(text, error.pos)}"
    return _WRONG.get(error.msg, error.msg[0].lower() + error.msg[1:])


def _found(text: str, position: int) -> str:
    match = re.compile(r"\w+|\S").match(text, position)
    if match:
        return f"`{_cut(match[0])}`"
    return "the end of the line" if text.find("\n", position) >= 0 or "\n" not in text else "the end of the file"


def _cut(token: str) -> str:
    return token if len(token) <= 24 else token[:23] + "…"


def _not_an_object(name: str, line: int, value: Any) -> DataError:
    kinds = {list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    found = kinds.get(type(value), "a number")
    return broken_line(name, line, None, f'expected an object such as {{"text": "..."}}, found {found}')
