"""Words and the tag of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lorakit.data.fields import checked_text, kind, value_of
from lorakit.data.labelled import named
from lorakit.errors import DataError
from lorakit.types import Format, Row


def canonical_tagged(row: Row, format: Format, names: Sequence[str]) -> dict[str, Any]:
    """Return ``tokens`` and ``tags``, lists of the same length; text is parted at white space.

    Args:
        row: As it was read.
        format: What `recognise` found; without ``tags``, the tokens alone.
        names: Where tags are numbers from 0: their names, in order; otherwise empty.

    Raises:
        DataError: There are no tokens, one is empty, a tag is a number without a name, or the lengths differ.
    """
    (column,) = format.columns["tokens"]
    tokens = [checked_text(token, place) for token, place in _numbered(row, column)]
    fields: dict[str, Any] = {"tokens": tokens}
    if "tags" in format.columns:
        (tag_column,) = format.columns["tags"]
        tags = [_tag(tag, place, names) for tag, place in _numbered(row, tag_column)]
        if len(tags) != len(tokens):
            raise DataError(
                f"{column!r} holds {len(tokens):,} and {tag_column!r} {len(tags):,} (first token {tokens[0][:30]!r}); "
                "each token has one tag"
            )
        fields["tags"] = tags
    return fields


def _numbered(row: Row, column: str) -> list[tuple[Any, str]]:
    """Return the members of a list, each with what messages call it."""
    value = value_of(row.fields, column)
    members = value.split() if isinstance(value, str) else value
    if not isinstance(members, list):
        raise DataError(f"{column!r} is {kind(value)}, and is a list, or text that is parted at white space")
    if not members:
        raise DataError(f"{column!r} is {'empty' if isinstance(value, str) else 'an empty list'}")
    return [(member, f"{column!r} number {number}") for number, member in enumerate(members, start=1)]


def _tag(value: Any, place: str, names: Sequence[str]) -> str:
    if not names and isinstance(value, (int, float)):
        raise DataError(
            f"{place} is {value}, a number without a name; name the numbers with --set data.label_names=FILE, "
            "one name a line"
        )
    return named(value, place, names)
