"""What is wrong, or only worth knowing, about the rows: counted before anything is trained."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from lorakit.data import scripts
from lorakit.data.readers.faults import counted
from lorakit.data.splitting import prompt_key, sample
from lorakit.errors import DataError
from lorakit.types import DataReport, Example, Format, Row

_STRONG_LEAK = 0.05
_SAMPLE = 2_000
"""Rows whose scripts are counted."""
_SAID = {
    "labelled": ("text", "labels"),
    "tagged": ("sentence", "tags"),
    "source_target": ("source", "targets"),
    "extractive": ("question", "answers"),
}
"""Format -> what is asked, and what is answered."""
_JAMO = frozenset(map(chr, range(0x1100, 0x1200)))


def examine(
    examples: Sequence[Example],
    rows: Sequence[Row],
    evaluation_rows: Sequence[Row],
    format: Format,
    learned: Callable[[Example], int] | None = None,
    tokenizer: Any = None,
) -> DataReport:
    """Count tokens, duplicates, contradictions, leaks, labels and scripts.

    Rows are compared composed (NFC) and without outer blanks. A row that a weight repeats is no duplicate of itself.

    Args:
        examples: The encoded training rows.
        rows: The canonical training rows.
        evaluation_rows: The canonical evaluation rows; may be empty.
        format: Their format.
        learned: How many predictions of an example are scored (`Objective.learned`); left out: its labelled tokens.
        tokenizer: Whose reading of each script is counted, on a sample of the rows; left out: no scripts are counted.

    Raises:
        DataError: The evaluation rows are the training rows.
    """
    report = DataReport(rows=len(rows))
    learned_of = learned or (lambda example: int((example.labels != -100).sum()))
    for example in examples:
        report.tokens += len(example)
        report.learned += learned_of(example)
        if len(example) > report.longest:
            report.longest, report.longest_where = len(example), example.where
    contents = {(row.source, row.line, _content(row)): row for row in rows}
    distinct, keys = list(contents.values()), [key for *_, key in contents]
    known = set(keys)
    report.duplicates = len(keys) - len(known)
    if format.name == "labelled":
        report.notes += _labels(distinct)
    report.notes += _contradictions(distinct, keys, format)
    report.notes += _decomposed([*distinct, *evaluation_rows])
    report.notes += _leak(report, distinct, known, evaluation_rows)
    if tokenizer is not None:
        texts = dict.fromkeys(text for row in sample(distinct, _SAMPLE, 0) for text in _prose(row))
        report.scripts = scripts.readability(list(texts), tokenizer)
        report.notes += scripts.spoken(report.scripts, tokenizer)
    if format.unused:
        columns = ", ".join(map(repr, format.unused))
        report.notes.append(f"column{'s' * (len(format.unused) > 1)} that nothing reads: {columns}.")
    return report


def _labels(rows: Sequence[Row]) -> list[str]:
    scores = [row.fields["score"] for row in rows if "score" in row.fields]
    if scores:
        return [f"scores from {min(scores):g} to {max(scores):g}, mean {sum(scores) / len(scores):.3g}."]
    several = [row.fields["labels"] if "labels" in row.fields else [row.fields["label"]] for row in rows]
    frequent = Counter(label for labels in several for label in labels).most_common()
    if not frequent:
        return ["no row has a label."]
    (most, most_count), (rarest, rarest_count) = frequent[0], frequent[-1]
    total = sum(map(len, several))
    mean = f", {total / len(rows):.2f} a row" if total != len(rows) else ""
    return [
        f"{counted(len(frequent), 'label')}{mean}: most frequent {most!r} ({counted(most_count, 'row')}), "
        f"rarest {rarest!r} ({counted(rarest_count, 'row')})."
    ]


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
    asked, answered = _SAID.get(format.name, ("prompt", "answers"))
    return [
        f"{counted(len(several), asked)} of {len(answers):,} with several different {answered} "
        f"(first: {first[several[0]].where})."
    ]


def _decomposed(rows: Sequence[Row]) -> list[str]:
    written_apart = [row for row in rows if any(_is_decomposed(text) for text in _texts(row.fields))]
    if not written_apart:
        return []
    korean = any(not _JAMO.isdisjoint(text) for row in written_apart for text in _texts(row.fields))
    cost = "Korean in this form takes two to three times the tokens" if korean else "models have seen little of it"
    return [
        f"{counted(len(written_apart), 'row')} ({_percent(len(written_apart) / len(rows))}) with letters taken apart "
        f"into pieces (Unicode NFD, as macOS writes file names; first: {written_apart[0].where}); {cost}. Compose them "
        "unless it is meant: --set data.normalise=nfc."
    ]


def _percent(share: float) -> str:
    # Of 100, two digits would be 1e+02.
    return f"{100 * share:.{2 if share < 0.995 else 3}g} %"


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
        f"{len(leaked):,} of {counted(len(evaluation_rows), 'evaluation row')} ({_percent(share)}) also stand in the "
        f"training rows (first: {leaked[0].where})."
    )
    if share > _STRONG_LEAK:
        note += (
            " THE EVALUATION LOSS WILL LOOK BETTER THAN IT IS: remove them, or set data.eval to a share such as 0.1."
        )
    return [note]


def _content(row: Row) -> str:
    """Return the row's words, equal for rows that differ in Unicode form or outer white space alone."""
    parts = [unicodedata.normalize("NFC", text).strip() for text in _texts(row.fields)]
    return json.dumps(parts, ensure_ascii=False)


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in order, and every number written out."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for member in value:
            yield from _texts(member)
    else:
        yield value if isinstance(value, str) else repr(value)


def _prose(row: Row) -> Iterator[str]:
    """Yield what people wrote in a row: neither labels nor roles."""
    for role, value in row.fields.items():
        if role == "tokens":
            yield " ".join(value)
        elif role == "messages":
            yield from (turn["content"] for turn in value)
        elif isinstance(value, str) and role != "label":
            yield value
