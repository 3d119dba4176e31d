"""Values of one row: found by the name of their column, and text where text is due."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lorakit.errors import DataError


def value_of(fields: Mapping[str, Any], column: str) -> Any:
    """Return the value of a column; ``labels.score`` is the value ``score`` in the object ``labels``.

    Raises:
        DataError: It is missing.
    """
    if column in fields:
        return fields[column]
    outer, _, inner = column.partition(".")
    if inner and isinstance(fields.get(outer), Mapping):
        return value_of(fields[outer], inner)
    raise DataError(f"has no {column!r} (it has {listed(fields) or 'nothing'})")


def text_of(fields: Mapping[str, Any], column: str) -> str:
    """Return the text of a column that must hold some.

    Raises:
        DataError: It is missing, null, no text, or nothing but white space.
    """
    return checked_text(value_of(fields, column), repr(column))


def checked_text(value: Any, place: str) -> str:
    """Return a value that must be text; `place` is what messages call it.

    Raises:
        DataError: It is null, no text, or nothing but white space.
    """
    if not isinstance(value, str):
        raise DataError(not_text(place, value))
    if not value.strip():
        raise DataError(f"{place} is {'only white space' if value else 'empty'}")
    return value


def not_text(place: str, value: object) -> str:
    """Return what is wrong with a value that is no text."""
    if value is None:
        return f"{place} is null"
    if isinstance(value, (bool, int, float)):
        return f'{place} is {literal(value)[:30]}, which is not text; in quotes it is: "{literal(value)[:30]}"'
    return f"{place} is {kind(value)}, not text"


def literal(value: float) -> str:
    """Return a number, or true or false, as JSON writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def kind(value: object) -> str:
    """Return what a value is, in words."""
    kinds: dict[type, str] = {list: "a list", dict: "an object", str: "text", type(None): "null"}
    return kinds.get(type(value), f"a {type(value).__name__}")


def listed(columns: Iterable[str]) -> str:
    """Return names in quotes, long ones cut and many counted."""
    names = list(columns)
    cut = [column if len(column) <= 30 else column[:29] + "…" for column in names[:12]]
    return ", ".join(map(repr, cut)) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
