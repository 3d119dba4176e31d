"""Words and the tag of each; entities are marked by BIO tags, whatever the file marks them by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lorakit.data.fields import checked_text, kind, value_of
from lorakit.data.labelled import named
from lorakit.errors import DataError
from lorakit.types import Format, Row

_BARE = {"O": "O", "B": "B-ENTITY", "I": "I-ENTITY"}
_AS_BIO = {"E": "I", "L": "I", "M": "I", "S": "B", "U": "B"}
"""Last and middle words of an entity go on with it, an only one begins it."""
_READ_AS_BIO = "tags of the kind BIOES or BILOU, read as BIO: E-, L- and M- as I-, S- and U- as B-"
_NAMED = "tags B and I, which name no kind of entity, read as B-ENTITY and I-ENTITY"


def as_bio(tags: Sequence[str]) -> list[str]:
    """Return tags as BIO where they mark the words of entities in another way; others are left as they are.

    BIOES, BMES and BILOU (Ratinov and Roth 2009, "Design Challenges and Misconceptions in Named Entity Recognition")
    also mark the last word of an entity and the only one; a bare ``B`` or ``I`` belongs to a kind without a name.

    Args:
        tags: Of a row, or all that there are: plain tags among them show that none marks an entity.
    """
    if set(tags) <= _BARE.keys():
        return [_BARE[tag] for tag in tags]
    if all(tag == "O" or (tag[1:2] == "-" and tag[0] in {"B", "I", *_AS_BIO}) for tag in tags):
        return [_AS_BIO.get(tag[0], tag[0]) + tag[1:] for tag in tags]
    return list(tags)


def canonical_tagged(row: Row, format: Format, names: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Return ``tokens`` and ``tags``, lists of the same length, and a remark where other tags became BIO.

    Text is parted at white space.

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
    said = []
    if "tags" in format.columns:
        (tag_column,) = format.columns["tags"]
        tags = [_tag(tag, place, names) for tag, place in _numbered(row, tag_column)]
        if len(tags) != len(tokens):
            raise DataError(
                f"{column!r} holds {len(tokens):,} and {tag_column!r} {len(tags):,} (first token {tokens[0][:30]!r}); "
                "each token has one tag"
            )
        fields["tags"] = as_bio(tags)
        if fields["tags"] != tags:
            said.append(_NAMED if set(tags) <= _BARE.keys() else _READ_AS_BIO)
    return fields, said


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
