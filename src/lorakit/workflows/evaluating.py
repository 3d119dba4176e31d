"""The verb `evaluate`: how good a target is on rows, how sure that is, and how it stands beside another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lorakit.adapters.bundle import open_target
from lorakit.checkpoints.finding import tokenizer_fingerprint
from lorakit.data.settings import DataSettings
from lorakit.metrics.classes import ClassScore
from lorakit.metrics.intervals import Sampled, Score, sampled
from lorakit.types import Row
from lorakit.workflows import evaluation_rows, learned_rows
from lorakit.workflows.comparing import Reading, Subject, beside, subject_of
from lorakit.workflows.encoding import fingerprint
from lorakit.workflows.measuring import OF_TOKENS, Measured, Tell, measure
from lorakit.workflows.placing import check_place, place


@dataclass(frozen=True, slots=True)
class Side:
    """The numbers of one model."""

    name: str
    """As typed; of a base without such a head ``base, new head``."""
    scores: dict[str, Score]
    table: list[ClassScore] = field(default_factory=list)
    """A line for each class, or kind of entity."""
    confusion: list[list[int]] = field(default_factory=list)
    """Rows of each label (line) by what was said (column)."""

    def as_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        found: dict[str, Any] = {"name": self.name, "scores": _as_json(self.scores)}
        if self.table:
            found["classes"] = [one.as_json() for one in self.table]
        return {**found, "confusion": self.confusion} if self.confusion else found


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How good a target is, with 95 % intervals of a bootstrap over rows."""

    objective: str
    rows: int
    units: int
    """What was resampled: rows, or sources where several rows share one."""
    origin: str
    """File or source of the rows, never a full path."""
    data: str
    """``sha256:…`` of the rows' contents."""
    target: Side
    against: Side | None = None
    differences: dict[str, Score] = field(default_factory=dict)
    """Of target less the other, on the same draws of rows; only where the two can be compared."""
    labels: tuple[str, ...] = ()
    signatures: dict[str, str] = field(default_factory=dict)
    """How BLEU and chrF were computed, in sacrebleu's notation."""
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return one JSON object."""
        found: dict[str, Any] = {
            "objective": self.objective,
            "rows": self.rows,
            "units": self.units,
            "origin": self.origin,
            "data": self.data,
            "target": self.target.as_json(),
        }
        if self.against is not None:
            found |= {"against": self.against.as_json(), "differences": _as_json(self.differences)}
        if self.labels:
            found["labels"] = list(self.labels)
        return {**found, "signatures": self.signatures, "notes": list(self.notes)}


def evaluate(
    target: str | Path,
    data: str | Path | DataSettings,
    *,
    against: str | Path | None = None,
    base: str | None = None,
    columns: Mapping[str, str] | None = None,
    rows: int | None = None,
    seed: int = 0,
    device: str = "auto",
    dtype: str = "auto",
    on_done: Tell | None = None,
) -> Evaluation:
    """Measure how good a target is on rows, alone or beside another on the same rows.

    What is measured depends on what the target was trained for: perplexity and bits per byte of text, mask accuracy,
    BLEU, chrF and ROUGE of written answers, accuracy, F1 and correlations of labels and scores, entities, answers.

    Args:
        target: Run, adapter, merged or base model: a folder, a built-in name or a Hub id.
        data: Rows with what would be right: a file, a folder or `hf://name`; or settings, whose `train` says where.
        against: ``base`` for the model `target` was trained on, or another target with the same objective; a base
            that has no such head gets the one that a training begins with.
        base: Base of an adapter that does not say where it is.
        columns: Role -> column of the file, where names differ.
        rows: Measure on a seeded sample of this many rows (of text-to-text: sources); left out: what `data.rows` says.
        seed: Draws the sample and the resamples.
        device: `auto`, `cpu`, `cuda` or `mps`.
        dtype: `auto`, `float32`, `bfloat16` or `float16`.
        on_done: Told how many rows of how many are done, for each model anew.

    Raises:
        LorakitError: Nothing of that name, rows that cannot be read or have labels the target does not know, or two
            models that cannot be compared.
    """
    check_place(device, dtype)
    settings = data if isinstance(data, DataSettings) else DataSettings(train=str(data), columns=dict(columns or {}))
    count = evaluation_rows.sample_size(settings, rows)
    opened = open_target(str(target), base=base)
    whole, format, notes = evaluation_rows.read(settings, opened, str(target), seed)
    read, told = evaluation_rows.drawn(whole, opened, count, seed)
    reading = Reading(read, format, settings)
    subjects = [subject_of(str(target), opened, reading)]
    if against is not None:
        subjects.append(beside(subjects[0], str(against), reading))
    for subject in subjects:
        evaluation_rows.check_labels(read, format, subject.objective.head, subject.name)
    notes = [*dict.fromkeys(note for subject in subjects for note in subject.notes), *notes, *told]
    for subject in subjects:
        notes += learned_rows.told(subject.target, subject.name, whole, format)
    read, left_out = evaluation_rows.read_by_all([subject.objective for subject in subjects], read)
    placed = place(device, dtype, *(subject.target.base.family for subject in subjects))
    sides = [_measured(subject, read, placed, on_done) for subject in subjects]
    return _evaluation(subjects, sides, read, seed, (*notes, *left_out))


def _evaluation(
    subjects: Sequence[Subject],
    sides: Sequence[tuple[str, Measured]],
    rows: Sequence[Row],
    seed: int,
    notes: Sequence[str],
) -> Evaluation:
    objective = subjects[0].objective
    drawn = [sampled(side.measures, side.units, seed) for _, side in sides]
    scored = [
        Side(called, {name: one.score for name, one in scores.items()}, side.table, side.confusion)
        for (called, side), scores in zip(sides, drawn, strict=True)
    ]
    comparable, said = _comparable(subjects, drawn)
    names = dict.fromkeys(row.source for row in rows)
    told = [f"{called}: {note}" for called, side in sides for note in side.notes]
    return Evaluation(
        objective=objective.name,
        rows=len(rows),
        units=sides[0][1].units,
        origin=", ".join(list(names)[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else ""),
        data=fingerprint(rows),
        target=scored[0],
        against=scored[1] if len(scored) > 1 else None,
        differences={name: (drawn[0][name] - drawn[1][name]).score for name in comparable},
        labels=objective.head.labels,
        signatures=sides[0][1].signatures,
        notes=(*notes, *told, *said),
    )


def _comparable(subjects: Sequence[Subject], drawn: Sequence[Mapping[str, Sampled]]) -> tuple[list[str], list[str]]:
    """Return the measures that two models can be compared by, and what is to be said of the others."""
    if len(subjects) < 2:
        return [], []
    shared = [name for name in drawn[0] if name in drawn[1]]
    one, other = (tokenizer_fingerprint(subject.target.tokenizer) for subject in subjects)
    dropped = [name for name in shared if name in OF_TOKENS] if one != other else []
    said = [f"the two cut text into other tokens: {', '.join(dropped)} cannot be compared"] if dropped else []
    return [name for name in shared if name not in dropped], said


def _measured(
    subject: Subject, rows: Sequence[Row], placed: tuple[str, str], on_done: Tell | None
) -> tuple[str, Measured]:
    """Return what the model is called, and how it answers."""
    tell = on_done if on_done is not None else (lambda done, total: None)
    model, is_new = subject.load(*placed)
    found = measure(subject.target, subject.objective, model, rows, tell)
    if not is_new:
        return subject.name, found
    note = f"the head is new, as a training begins with it (seed {subject.seed}), and has learned nothing"
    return f"{subject.name}, new head", replace(found, notes=[*found.notes, note])


def _as_json(scores: Mapping[str, Score]) -> dict[str, Any]:
    return {name: score.as_json() for name, score in scores.items()}
