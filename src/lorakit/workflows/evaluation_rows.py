"""Rows to measure on: of the format that a target reads, with labels it knows, the same for every model."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lorakit import objectives
from lorakit.adapters.bundle import Target
from lorakit.data import formats, sources, splitting
from lorakit.data.readers.faults import counted
from lorakit.data.settings import DataSettings
from lorakit.errors import DataError, nearest
from lorakit.objectives.class_labels import names_in, number_in
from lorakit.objectives.tags import repaired
from lorakit.types import Format, Head, Objective, Row
from lorakit.workflows import tasks
from lorakit.workflows.measuring import source_of

_SHOWN = 5
"""Rows that a message names."""


def sample_size(settings: DataSettings, rows: int | None) -> int | None:
    """Return how many rows are asked for, by `rows` or by `settings`; None: all.

    Raises:
        DataError: The two say different things.
    """
    if rows is not None and settings.rows not in (None, rows):
        raise DataError(f"--rows is {rows:,} and data.rows {settings.rows:,}: give one of them.")
    return settings.rows if rows is None else rows


def read(settings: DataSettings, target: Target, called: str, seed: int) -> tuple[list[Row], Format, list[str]]:
    """Return all rows, canonical as the target's objective reads them, what they hold, and notes.

    Args:
        settings: Says where they are and how odd ones are taken.
        target: What is to be measured.
        called: What messages call it.
        seed: Of the reading.

    Raises:
        DataError: Rows that cannot be read, or of a format that the target has not learned.
    """
    reading = sources.read(settings.train, settings, seed=seed)
    format = formats.recognise(reading.rows, settings.columns)
    task = tasks.settings_of(target)
    name = task.name
    if format.name not in objectives.FORMATS[name]:
        raise DataError(
            f"{called} learned {name}, whose rows are of the format {' or '.join(objectives.FORMATS[name])}; "
            f"these are of the format {format.name}. Give rows of that kind, or name the columns: "
            f"--set data.columns.ROLE=NAME."
        )
    names = formats.label_names(settings.label_names)
    rows, notes = formats.canonical(
        reading.rows,
        format,
        settings.broken,
        normalise=tasks.normalisation(target, settings),
        label_names=names,
        undone="Nothing was measured.",
    )
    return rows, format, [*reading.notes, *notes]


def drawn(rows: list[Row], target: Target, count: int | None, seed: int) -> tuple[list[Row], list[str]]:
    """Return the rows to measure on, with tags as training read them, and notes.

    Args:
        rows: Canonical.
        target: What is to be measured.
        count: Take a seeded sample of so many; of text-to-text rows, of so many sources with all their references.
        seed: Draws it.
    """
    task = tasks.settings_of(target)
    if getattr(task, "broken_tags", "") == "repair":
        rows = [replace(row, fields={**row.fields, "tags": repaired(row.fields["tags"])[0]}) for row in rows]
    if count is None:
        return rows, []
    units: dict[str, list[Row]] = {}
    for number, row in enumerate(rows):
        units.setdefault(source_of(row) if task.name == "seq2seq_lm" else str(number), []).append(row)
    what = "source" if task.name == "seq2seq_lm" else "row"
    if count >= len(units):
        return rows, [f"{counted(count, what)} asked for, {len(units):,} there: all are used"]
    kept = {id(row) for row in splitting.sample([several[0] for several in units.values()], count, seed)}
    sample = [row for several in units.values() if id(several[0]) in kept for row in several]
    return sample, [f"{count:,} of {counted(len(units), what)}, a seeded sample"]


def check_labels(rows: Sequence[Row], format: Format, head: Head, name: str) -> None:
    """Refuse rows with labels that a model has not learned, or with scores in their place: it could never say them.

    Args:
        rows: Canonical.
        format: What they hold.
        head: Of the model.
        name: Of the model, for the message.

    Raises:
        DataError: Names the rows, the field and the labels that are known.
    """
    if head.problem == "regression":
        _check_scores(rows, format, name)
        return
    if not head.labels:
        return
    if "score" in format.columns:
        column = format.columns["score"][0]
        raise DataError(
            f"{name} learned labels, and these rows have scores (column {column!r}). Give rows with labels, name the "
            f"column that holds them: --set data.columns.label=NAME, or evaluate a model that learned scores."
        )
    role = next(role for role in ("label", "labels", "tags") if role in format.columns)
    several = [row for row in rows if role == "labels" and len(row.fields[role]) != 1]
    if several and head.problem == "single_label_classification":
        raise DataError(
            f"{name} learned one label a text, and {several[0].where} has {len(several[0].fields[role])}. Give rows "
            f"with one label each, or evaluate a model that learned several."
        )
    unknown = [
        f"{row.where}: {format.columns[role][0]!r} is {label[:40]!r}. {nearest(label, head.labels)}".rstrip()
        for row in rows
        for label in dict.fromkeys(row.fields["tags"] if role == "tags" else names_in(row))
        if label not in head.labels
    ]
    if not unknown:
        return
    listed = "\n  ".join(unknown[:_SHOWN])
    more = f"\n  and {len(unknown) - _SHOWN:,} more" if len(unknown) > _SHOWN else ""
    known = ", ".join(map(repr, head.labels[:8]))
    others = f" and {len(head.labels) - 8:,} more" if len(head.labels) > 8 else ""
    raise DataError(
        f"{name} was not trained on some labels of these rows:\n  {listed}{more}\nIt knows {known}{others}. Mend or "
        f"remove these rows, or train on rows that have all labels."
    )


def _check_scores(rows: Sequence[Row], format: Format, name: str) -> None:
    """Refuse rows without a number to compare a score with; a label may be one."""
    for row in rows:
        try:
            number_in(row)
        except DataError:
            role = "labels" if "labels" in format.columns else "label"
            raise DataError(
                f"{name} learned scores, and these rows have labels ({row.where}: {format.columns[role][0]!r} is "
                f"{str(row.fields[role])[:40]!r}). Give rows with scores, name the column that holds them: "
                f"--set data.columns.score=NAME, or evaluate a model that learned labels."
            ) from None


def read_by_all(models: Sequence[Objective], rows: list[Row]) -> tuple[list[Row], list[str]]:
    """Return the rows that every model reads, and what is to be said of the others.

    Raises:
        DataError: A row cannot be encoded, or none is left.
    """
    kept = set(range(len(rows)))
    notes: list[str] = []
    for objective in models:
        # Of a question no window may hold the answer, and it is asked all the same.
        if objective.name == "question_answering":
            continue
        if objective.name == "token_classification":
            # It predicts in windows: no row is too long, but tags may still be broken.
            objective = _of_any_length(objective)
            objective.encode(rows)
        else:
            kept &= {example.row for example in objective.encode(rows)}
        notes += [note for note in objective.notes if note not in notes]
    if not kept:
        raise DataError("no row is left to measure on." + "".join(f"\n  {note}" for note in notes))
    return [row for number, row in enumerate(rows) if number in kept], notes


def _of_any_length(objective: Any) -> Any:
    return replace(objective, job=replace(objective.job, max_length=sys.maxsize), counted=Counter())
