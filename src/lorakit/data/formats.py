"""Rows brought to the names that objectives read."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from lorakit.data.chats import canonical_chat
from lorakit.data.columns import KNOWN_COLUMNS, recognise
from lorakit.data.extractive import canonical_extractive, composed
from lorakit.data.fields import checked_text, not_text, text_of, value_of
from lorakit.data.labelled import canonical_labelled, label_names
from lorakit.data.readers.faults import counted
from lorakit.data.tagged import canonical_tagged
from lorakit.errors import DataError
from lorakit.types import Format, Row

__all__ = ["KNOWN_COLUMNS", "canonical", "canonical_rows", "in_nfc", "label_names", "recognise", "told"]

_SKIP = "Mend the rows, or skip and count them with --set data.broken=skip."
_NONE_LEFT = "Mend the rows, or say which columns are meant: --set data.columns.ROLE=NAME."


def canonical(
    rows: Sequence[Row],
    format: Format,
    broken: Literal["error", "skip"] = "error",
    *,
    normalise: Literal["nfc"] | None = None,
    label_names: Sequence[str] = (),
    undone: str = "Nothing was trained or written.",
    cure: str | None = None,
) -> tuple[list[Row], list[str]]:
    """Bring rows to the fields of their format (`types.Format.name`).

    The words themselves are not changed. ``instruction`` and ``input`` become one prompt with a newline between; a last
    turn of a chat that is not the assistant's is left out, as nothing after it is learned, and counted; a list of
    targets becomes a row each, and is counted.

    Args:
        rows: As they were read.
        format: What `recognise` found.
        broken: Whether a row that lacks what it needs stops everything, or is skipped and counted.
        normalise: ``nfc`` composes letters in every text; left out: Unicode stays as it is.
        label_names: Where labels or tags are numbers from 0: their names, in order.
        undone: What a message about broken rows says of the work.
        cure: What it advises; left out: to mend the rows, or to skip them where others are left.

    Returns:
        The rows, and a sentence for everything the user should know.

    Raises:
        DataError: Rows lack a column; hold null, a number or nothing but white space where text is due; are chats that
            cannot be read; have tags or answers that do not fit their texts. Names the first five and the count. Or no
            row is left.
    """
    kept: list[Row] = []
    faults: list[str] = []
    remarks: Counter[str] = Counter()
    for row in rows:
        try:
            several, said = canonical_rows(row, format, normalise=normalise, label_names=label_names)
        except DataError as error:
            faults.append(str(error))
            continue
        kept += several
        remarks.update(said)
    if faults and (broken == "error" or not kept):
        raise _unusable(faults, len(rows), cure or f"{undone} {_SKIP if len(faults) < len(rows) else _NONE_LEFT}")
    return kept, told(remarks, faults, len(rows))


def canonical_rows(
    row: Row,
    format: Format,
    *,
    normalise: Literal["nfc"] | None = None,
    label_names: Sequence[str] = (),
) -> tuple[list[Row], list[str]]:
    """Bring one row to the names that objectives read, as `canonical` does; also return remarks to be counted.

    Raises:
        DataError: It cannot be used; says where it stands.
    """
    try:
        several, said = _fields(row, format, label_names)
        if normalise == "nfc":
            several = [composed(one) if format.name == "extractive" else in_nfc(one) for one in several]
    except DataError as error:
        raise DataError(f"{row.where}: {error}") from error
    return [Row(fields, row.source, row.line) for fields in several], said


def told(remarks: Mapping[str, int], faults: Sequence[str], total: int) -> list[str]:
    """Return a sentence for each remark and one for all rows that were skipped, `total` being all rows read."""
    notes = [f"{counted(count, 'row')}: {remark}." for remark, count in remarks.items()]
    if faults:
        notes.append(f"{len(faults):,} of {counted(total, 'row')} skipped: {'; '.join(_first(faults))}.")
    return notes


def in_nfc(value: Any) -> Any:
    """Return a text, and every text in lists and mappings, with composed letters (Unicode NFC)."""
    if isinstance(value, str):
        return unicodedata.normalize("NFC", value)
    if isinstance(value, dict):
        return {key: in_nfc(member) for key, member in value.items()}
    return [in_nfc(member) for member in value] if isinstance(value, list) else value


def _fields(row: Row, format: Format, names: Sequence[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the canonical fields of a row, of several rows where it has several targets, and remarks."""
    match format.name:
        case "chat":
            fields, said = canonical_chat(row, format)
            return [fields], said
        case "source_target":
            return _pairs(row, format)
        case "labelled":
            return [canonical_labelled(row, format, names)], []
        case "tagged":
            fields, said = canonical_tagged(row, format, names)
            return [fields], said
        case "extractive":
            return [canonical_extractive(row, format)], []
        case _:
            return [_texts(row, format)], []


def _texts(row: Row, format: Format) -> dict[str, Any]:
    fields = {}
    for role, (column, *extra) in format.columns.items():
        words = text_of(row.fields, column)
        for optional in extra:
            more = row.fields.get(optional)
            if more is not None and not isinstance(more, str):
                raise DataError(not_text(repr(optional), more))
            words += f"\n{more}" if more and more.strip() else ""
        fields[role] = words
    return fields


def _pairs(row: Row, format: Format) -> tuple[list[dict[str, Any]], list[str]]:
    source = text_of(row.fields, format.columns["source"][0])
    if "target" not in format.columns:
        return [{"source": source}], []
    (column,) = format.columns["target"]
    value = value_of(row.fields, column)
    if value == []:
        raise DataError(f"{column!r} is an empty list")
    given = value if isinstance(value, list) else [value]
    targets = [checked_text(target, repr(column)) for target in given]
    remarks = ["a list of targets, each of which became a row of its own"] if len(targets) > 1 else []
    return [{"source": source, "target": target} for target in targets], remarks


def _unusable(faults: Sequence[str], total: int, cure: str) -> DataError:
    listed = "\n".join(f"  {fault}" for fault in _first(faults))
    verb = "cannot be used" if len(faults) < total else "cannot be used, which is all of them"
    return DataError(f"{len(faults):,} of {counted(total, 'row')} {verb}:\n{listed}\n{cure}")


def _first(faults: Sequence[str], shown: int = 5) -> list[str]:
    return [*faults[:shown], *([f"and {len(faults) - shown:,} more"] if len(faults) > shown else [])]
