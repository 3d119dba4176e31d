"""What is wrong, or only worth knowing, about the rows: counted before anything is trained."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Sequence

from lorakit.data.readers.faults import counted
from lorakit.data.splitting import prompt_key
from lorakit.errors import DataError
from lorakit.types import DataReport, Example, Format, Row

_STRONG_LEAK = 0.05
_JAMO = frozenset(map(chr, range(0x1100, 0x1200)))


def examine(
    examples: Sequence[Example], rows: Sequence[Row], evaluation_rows: Sequence[Row], format: Format
) -> DataReport:
    """Count tokens, duplicates, contradictions and leaks. Rows are compared composed (NFC) and without outer blanks.

    A row that a weight repeats is no duplicate of itself.

    Args:
        examples: The encoded training rows.
        rows: The canonical training rows.
        evaluation_rows: The canonical evaluation rows; may be empty.
        format: Their format.

    Raises:
        DataError: The evaluation rows are the training rows.
    """
    report = DataReport(rows=len(rows))
    for example in examples:
        report.tokens += len(example)
        report.learned += int((example.labels != -100).sum())
        if len(example) > report.longest:
            report.longest, report.longest_where = len(example), example.where
    distinct = list({(row.source, row.line): row for row in rows}.values())
    keys = [_content(row) for row in distinct]
    known = set(keys)
    report.duplicates = len(keys) - len(known)
    report.notes += _contradictions(distinct, keys, format)
    report.notes += _decomposed([*distinct, *evaluation_rows])
    report.notes += _leak(report, distinct, known, evaluation_rows)
    if format.unused:
        columns = ", ".join(map(repr, format.unused))
        report.notes.append(f"column{'s' * (len(format.unused) > 1)} that nothing reads: {columns}.")
    return report


def _contradictions(rows: Sequence[Row], keys: Sequence[str], format: Format) -> list[str]:
    if format.name == "text":
        return []
    answers: dict[str, set[str]] = {}
    first: dict[str, Row] = {}
    for row, key in zip(rows, keys, strict=True):
        prompt = prompt_key(row, format)
        answers.setdefault(prompt, set()).add(key)
        first.setdefault(prompt, row)
    several = [prompt for prompt, different in answers.items() if len(different) > 1]
    if not several:
        return []
    return [
        f"{counted(len(several), 'prompt')} of {len(answers):,} with several different answers "
        f"(first: {first[several[0]].where})."
    ]


def _decomposed(rows: Sequence[Row]) -> list[str]:
    written_apart = [row for row in rows if any(_is_decomposed(text) for text in _texts(row))]
    if not written_apart:
        return []
    share = 100 * len(written_apart) / len(rows)
    korean = any(not _JAMO.isdisjoint(text) for row in written_apart for text in _texts(row))
    cost = "Korean in this form takes two to three times the tokens" if korean else "models have seen little of it"
    return [
        f"{counted(len(written_apart), 'row')} ({share:.2g} %) with letters taken apart into pieces (Unicode NFD, as "
        f"macOS writes file names; first: {written_apart[0].where}); {cost}. Compose them (NFC) unless it is meant."
    ]


def _is_decomposed(text: str) -> bool:
    # Composing makes such text shorter; other departures from NFC (a compatibility ideograph) keep the length.
    return not unicodedata.is_normalized("NFC", text) and len(unicodedata.normalize("NFC", text)) < len(text)


def _leak(report: DataReport, rows: Sequence[Row], known: set[str], evaluation_rows: Sequence[Row]) -> list[str]:
    leaked = [row for row in evaluation_rows if _content(row) in known]
    report.leaked = len(leaked)
    if not leaked:
        return []
    places = {(row.source, row.line) for row in rows}
    if len(leaked) == len(evaluation_rows) and all((row.source, row.line) in places for row in leaked):
        raise DataError(
            f"the evaluation rows are the training rows (first: {leaked[0].where}): a loss measured on them says "
            "nothing about new ones. Give data.eval another file, or a share such as 0.1."
        )
    share = len(leaked) / len(evaluation_rows)
    note = (
        f"{len(leaked):,} of {counted(len(evaluation_rows), 'evaluation row')} ({100 * share:.2g} %) also stand in the "
        f"training rows (first: {leaked[0].where})."
    )
    if share > _STRONG_LEAK:
        note += (
            " THE EVALUATION LOSS WILL LOOK BETTER THAN IT IS: remove them, or set data.eval to a share such as 0.1."
        )
    return [note]


def _content(row: Row) -> str:
    """Return the row's words, equal for rows that differ in Unicode form or outer white space alone."""
    parts = [unicodedata.normalize("NFC", text).strip() for text in _texts(row)]
    return json.dumps(parts, ensure_ascii=False)


def _texts(row: Row) -> Iterator[str]:
    for value in row.fields.values():
        if isinstance(value, str):
            yield value
        else:
            for turn in value:
                yield turn["role"]
                yield turn["content"]
