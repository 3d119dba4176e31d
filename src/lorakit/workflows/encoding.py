"""Rows read, understood, parted into training and evaluation rows, and encoded; no model is needed for this."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from lorakit import objectives
from lorakit.adapters.bundle import Target
from lorakit.data import formats, sources, splitting
from lorakit.data import report as reports
from lorakit.data.readers.faults import counted
from lorakit.data.settings import DataSettings
from lorakit.errors import DataError
from lorakit.objectives.settings import ObjectiveSettings
from lorakit.recipe import Recipe
from lorakit.types import DataReport, Example, Format, FormatName, Objective, Row
from lorakit.workflows import tasks

Keep = Callable[[str, Iterable[Example]], Sequence[Example]]
"""Takes up the examples of a side (``training``, ``evaluation``) and returns them, as a list or from files."""

_SAMPLE = 100
"""Rows of a stream that are looked at before training."""
_TOGETHER = 1024
"""Rows encoded in one call."""


@dataclass(frozen=True)
class Understood:
    """What is known of rows once they are encoded, besides their examples."""

    format: Format
    settings: ObjectiveSettings
    """Of the objective, with what the rows decided: labels, kind of problem."""
    evaluation_rows: list[Row]
    report: DataReport
    fingerprint: str | None
    """``sha256:…`` of the training rows; None for a stream."""


@dataclass(frozen=True)
class Encoded:
    """Rows as they are learned and evaluated on."""

    understood: Understood
    training: Sequence[Example]
    """Of a stream, the first ones."""
    evaluation: Sequence[Example]
    recalled: bool = False
    """Whether an earlier start encoded them."""


def in_memory(side: str, examples: Iterable[Example]) -> list[Example]:
    """Return examples as a list; a `Keep`."""
    return list(examples)


def encode(recipe: Recipe, target: Target, make: Callable[[Any, Format], Objective], keep: Keep = in_memory) -> Encoded:
    """Read the rows of a recipe and encode them.

    Args:
        recipe: As it runs.
        target: What is trained on.
        make: Returns the objective for its resolved settings and rows of a format.
        keep: Takes up the examples.

    Raises:
        DataError: The rows cannot be read, understood, or learned from.
    """
    data = recipe.data
    train_rows, notes = _read(data, recipe.train.seed)
    accepted = objectives.FORMATS[recipe.objective.name] if recipe.objective is not None else None
    format = formats.recognise(train_rows, data.columns, accepted)
    settings = tasks.chosen(recipe.objective, format.name, target.base)
    train_rows, canonical_notes = _canonical(data, train_rows, format)
    notes += canonical_notes
    train_rows, evaluation_rows, split_notes = _split(recipe, train_rows, format, accepted)
    notes += split_notes
    # Of the rows that learn alone: a label that others have cannot be learned.
    settings = tasks.resolved(settings, train_rows, target, held=evaluation_rows, streamed=data.stream)
    notes += tasks.unlearned(settings, train_rows) if not data.stream else []

    objective = make(settings, format)
    training = keep("training", _examples(objective, train_rows))
    evaluation = keep("evaluation", _examples(objective, evaluation_rows))
    _check_left(training, evaluation, [*notes, *objective.notes])
    report = reports.examine(training, train_rows, evaluation_rows, format, objective.learned, target.tokenizer)
    report.notes = [*notes, *objective.notes, *report.notes]
    stamp = fingerprint(train_rows) if not data.stream else None
    return Encoded(Understood(format, settings, evaluation_rows, report, stamp), training, evaluation)


def fingerprint(rows: Iterable[Row]) -> str:
    """Return ``sha256:…`` of the rows' contents in order, wherever they were read from."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(dict(row.fields), ensure_ascii=False, sort_keys=True).encode())
        digest.update(b"\n")
    return f"sha256:{digest.hexdigest()}"


def _examples(objective: Objective, rows: Sequence[Row]) -> Iterator[Example]:
    """Yield the examples of rows, some at a time, so that what a tokenizer hands over is soon let go."""
    together = _TOGETHER if objective.apart else max(1, len(rows))
    for first in range(0, len(rows), together):
        try:
            yield from objective.encode(rows[first : first + together], first)
        except DataError:
            # A message that counts all the rows it is about, not those of one part.
            objective.encode(rows)
            raise


def _read(data: DataSettings, seed: int) -> tuple[list[Row], list[str]]:
    """Return the rows to train on, of a stream the first ones, and what is to be said about them."""
    if data.stream:
        rows = list(islice(sources.stream(data.train, data, seed=seed), _SAMPLE))
        return rows, [f"rows are read while training; what is counted here are the first {len(rows):,}"]
    reading = sources.read(data.train, data, seed=seed)
    return reading.rows, [*reading.notes]


def _canonical(data: DataSettings, rows: list[Row], format: Format) -> tuple[list[Row], list[str]]:
    names = formats.label_names(data.label_names)
    return formats.canonical(rows, format, data.broken, normalise=data.normalise, label_names=names)


def _split(
    recipe: Recipe, rows: list[Row], format: Format, accepted: tuple[FormatName, ...] | None
) -> tuple[list[Row], list[Row], list[str]]:
    """Return training rows, evaluation rows and what is to be said about them."""
    data, seed = recipe.data, recipe.train.seed
    notes: list[str] = []
    share = data.held_out
    if isinstance(share, float):
        train_rows, evaluation_rows = splitting.split(rows, format, share, seed)
    else:
        reading = sources.read(share, data, seed=seed)
        evaluation_format = formats.recognise(reading.rows, data.columns, accepted)
        if evaluation_format.name != format.name:
            raise DataError(
                f"data.eval holds {evaluation_format.name!r} rows and data.train {format.name!r} rows; a loss of one "
                f"says nothing about the other. Give rows of the same columns."
            )
        evaluation_rows, canonical_notes = _canonical(data, reading.rows, evaluation_format)
        train_rows, notes = rows, [*reading.notes, *canonical_notes]
    if data.rows is not None:
        if data.stream:
            raise DataError("data.rows takes a sample of all rows, which a stream does not know; use train.max_steps.")
        train_rows, sample_notes = _sampled(train_rows, data.rows, seed, "training", splitting.sample_to_learn)
        notes += sample_notes
    if data.eval_rows is not None:
        evaluation_rows, sample_notes = _sampled(evaluation_rows, data.eval_rows, seed, "evaluation")
        notes += sample_notes
    return train_rows, evaluation_rows, notes


def _sampled(
    rows: list[Row],
    count: int,
    seed: int,
    kind: str,
    draw: Callable[[Sequence[Row], int, int], list[Row]] = splitting.sample,
) -> tuple[list[Row], list[str]]:
    if count >= len(rows):
        return rows, [f"{counted(count, f'{kind} row')} asked for, {len(rows):,} there: all are used"]
    return draw(rows, count, seed), [f"{count:,} of {counted(len(rows), f'{kind} row')}, a seeded sample"]


def _check_left(training: Sequence[Example], evaluation: Sequence[Example], notes: Sequence[str]) -> None:
    if not training or not evaluation:
        side = "training" if not training else "evaluation"
        told = "".join(f"\n  {note}" for note in notes)
        raise DataError(f"no {side} row is left after reading and checking.{told}")
