"""Questions whose answers stand in a context."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

from lorakit.data.fields import checked_text, kind, text_of, value_of
from lorakit.errors import DataError
from lorakit.types import Format, Row


def canonical_extractive(row: Row, format: Format) -> dict[str, Any]:
    """Return ``question``, ``context`` and ``answers``, a list of ``text`` and ``start``.

    Answers are read as ``{"text": [...], "answer_start": [...]}`` or ``[{"text": ..., "answer_start": ...}, ...]``
    (Rajpurkar et al. 2016, arXiv:1606.05250). Without an answer, or with a true ``is_impossible`` (Rajpurkar et al.
    2018, arXiv:1806.03822), the list is empty.

    Raises:
        DataError: A text is missing or empty, or an answer does not stand at its place; names the question's ``id``.
    """
    try:
        fields: dict[str, Any] = {
            role: text_of(row.fields, format.columns[role][0]) for role in ("question", "context")
        }
        if "answers" in format.columns:
            column, *flags = format.columns["answers"]
            impossible = any(row.fields.get(flag) in (True, "true", "True") for flag in flags)
            answers = [] if impossible else _answers(value_of(row.fields, column), column)
            fields["answers"] = [_placed(answer, fields["context"], column) for answer in answers]
    except DataError as error:
        name = row.fields.get("id")
        raise DataError(f"question {name!r}: {error}" if isinstance(name, str) else str(error)) from error
    return fields


def composed(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields with composed letters (Unicode NFC), starts of answers moved accordingly.

    Raises:
        DataError: An answer begins or ends within a letter that is composed.
    """
    context = unicodedata.normalize("NFC", fields["context"])
    moved = [
        {
            "text": unicodedata.normalize("NFC", answer["text"]),
            "answer_start": len(unicodedata.normalize("NFC", fields["context"][: answer["start"]])),
        }
        for answer in fields.get("answers", ())
    ]
    found = {"question": unicodedata.normalize("NFC", fields["question"]), "context": context}
    return {**found, "answers": [_placed(one, context, "answers") for one in moved]} if "answers" in fields else found


def _answers(value: Any, column: str) -> list[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        texts, starts = value.get("text"), value.get("answer_start")
        if not isinstance(texts, list) or not isinstance(starts, list):
            raise DataError(f"{column!r} is an object without the lists 'text' and 'answer_start'")
        if len(texts) != len(starts):
            raise DataError(f"{column!r} holds {len(texts)} of 'text' and {len(starts)} of 'answer_start'")
        return [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
    if not isinstance(value, list) or not all(isinstance(answer, Mapping) for answer in value):
        raise DataError(f"{column!r} is {kind(value)}, and is a list of objects with 'text' and 'answer_start'")
    return value


def _placed(answer: Mapping[str, Any], context: str, column: str) -> dict[str, Any]:
    """Return an answer that stands where it says; otherwise say where it stands."""
    text = checked_text(answer.get("text"), f"'text' in {column!r}")
    start = answer.get("answer_start")
    shown = repr(text if len(text) <= 40 else text[:39] + "…")
    place = context.find(text)
    elsewhere = f"stands at {place:,}" if place >= 0 else "stands nowhere in the context"
    if not isinstance(start, int) or isinstance(start, bool):
        raise DataError(f"{column!r}: the answer {shown} has no whole number as 'answer_start'; it {elsewhere}")
    if start >= 0 and context.startswith(text, start):
        return {"text": text, "start": start}
    there = repr(context[start : start + min(len(text), 40)]) if start >= 0 else "nothing"
    raise DataError(
        f"{column!r}: the answer {shown} does not stand at {start:,} in its context ({there} does); it {elsewhere}"
    )
