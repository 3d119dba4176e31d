"""Texts with labels by name, several labels, or a score."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lorakit.data.decoding import ByteSource, inspect
from lorakit.data.fields import kind, literal, text_of, value_of
from lorakit.data.paths import locate, shown
from lorakit.errors import DataError
from lorakit.types import Format, Row

_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)


def canonical_labelled(row: Row, format: Format, names: Sequence[str]) -> dict[str, Any]:
    """Return the text or the two texts of a row, and its ``label``, ``labels`` or ``score``.

    A label is text without white space at its ends; a number, or true or false, of JSON becomes its literal. ``labels``
    is a list of such labels, or one text that is parted at ``|``, or at commas where it holds no ``|``; an empty text,
    as in a cell of a CSV, names none. A score is a finite number, also written as text.

    Args:
        row: As it was read.
        format: What `recognise` found.
        names: Where labels are numbers from 0: their names, in order; otherwise empty.

    Raises:
        DataError: A text is missing or empty, a label is null or empty, or a score is no finite number.
    """
    fields: dict[str, Any] = {}
    readers: Mapping[str, Callable[[Any, str, Sequence[str]], Any]] = {
        "label": _label,
        "labels": _labels,
        "score": _score,
    }
    for role, (column, *_) in format.columns.items():
        if role in readers:
            fields[role] = readers[role](value_of(row.fields, column), repr(column), names)
        else:
            fields[role] = text_of(row.fields, column)
    return fields


def label_names(given: str | Sequence[str] | None, base_dir: Path | None = None) -> tuple[str, ...]:
    """Return the names that numbered labels have, read from a file with one name a line where `given` is its path.

    Raises:
        DataError: The file cannot be read, or a name is empty or stands twice.
    """
    if isinstance(given, str):
        path = locate(given, base_dir)
        lines = [line.strip() for _, line in inspect(ByteSource(shown(path.name), path)).lines()]
        while lines and not lines[-1]:
            lines.pop()
    else:
        lines = [name.strip() for name in given or ()]
    for number, name in enumerate(lines):
        if not name or name in lines[:number]:
            fault = "has no name" if not name else f"has the name {name!r} of an earlier one"
            raise DataError(f"data.label_names: number {number} {fault}. Give each number one name of its own.")
    return tuple(lines)


def named(value: Any, place: str, names: Sequence[str]) -> str:
    """Return a label or a tag by its name; `place` is what messages call it.

    Raises:
        DataError: It is null, empty or no single value, or a number that `names` does not hold.
    """
    if value is None:
        raise DataError(f"{place} is null")
    if isinstance(value, (bool, int, float)):
        value = literal(value)
    if not isinstance(value, str):
        raise DataError(f"{place} is {kind(value)}, not the name of a label")
    label = value.strip()
    if not label:
        raise DataError(f"{place} is {'only white space' if value else 'empty'}")
    if not names or label in names:
        return label
    if label.isascii() and label.isdigit() and int(label) < len(names):
        return names[int(label)]
    raise DataError(f"{place} is {label[:30]!r}; data.label_names holds numbers 0 to {len(names) - 1}")


def _label(value: Any, place: str, names: Sequence[str]) -> str:
    if isinstance(value, list):
        raise DataError(f"{place} is a list; for several labels a row: --set data.columns.labels={place[1:-1]}")
    if isinstance(value, dict):
        raise DataError(_inside(value, place, "label"))
    return named(value, place, names)


def _labels(value: Any, place: str, names: Sequence[str]) -> list[str]:
    if isinstance(value, dict):
        raise DataError(_inside(value, place, "score"))
    if isinstance(value, str):
        parts: list[Any] = value.split("|" if "|" in value else ",") if value.strip() else []
    else:
        parts = value if isinstance(value, list) else [value]
    one = place if len(parts) == 1 else f"a label of {place}"
    labels = [named(part, one, names) for part in parts]
    doubled = next((label for number, label in enumerate(labels) if label in labels[:number]), None)
    if doubled is not None:
        raise DataError(f"{place} names {doubled[:30]!r} twice")
    return labels


def _score(value: Any, place: str, names: Sequence[str]) -> float:
    del names
    if isinstance(value, dict):
        raise DataError(_inside(value, place, "score"))
    if value is None:
        raise DataError(f"{place} is null")
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number and not (isinstance(value, str) and _NUMBER.fullmatch(value)):
        shown_value = repr(value[:30]) if isinstance(value, str) else literal(value)
        raise DataError(f"{place} is {shown_value}, and a score is a number such as 3.5")
    score = float(value)
    if not math.isfinite(score):
        raise DataError(f"{place} is {value}, and a score is a finite number")
    return score


def _inside(value: Mapping[str, Any], place: str, role: str) -> str:
    inner = ", ".join(f"{place[1:-1]}.{key}" for key in list(value)[:5])
    return (
        f"{place} is an object; say which of its values is the label or the score, for example "
        f"--set data.columns.{role}=NAME with one of {inner}"
    )
