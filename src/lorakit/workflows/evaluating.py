"""The verb `evaluate`: how good a target is on rows, how sure that is, and how it stands beside another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorakit.adapters.bundle import Target, open_target
from lorakit.adapters.manifest import read_local
from lorakit.checkpoints.finding import tokenizer_fingerprint
from lorakit.data.settings import DataSettings
from lorakit.errors import DataError, LorakitError
from lorakit.metrics.classes import ClassScore
from lorakit.metrics.intervals import Sampled, Score, sampled
from lorakit.types import Format, Objective, Row
from lorakit.workflows import evaluation_rows, tasks
from lorakit.workflows.measuring import OF_TOKENS, Measured, Tell, measure
from lorakit.workflows.placing import check_place, place
from lorakit.workflows.preparing import fingerprint

if TYPE_CHECKING:
    from torch import nn

BASE = "base"
"""Word for the model that a target was trained on."""


@dataclass(frozen=True, slots=True)
class Side:
    """The numbers of one model."""

    name: str
    """As typed."""
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


@dataclass(frozen=True, slots=True)
class _Subject:
    """A model about to be measured."""

    name: str
    target: Target
    objective: Objective
    is_base: bool = False

    def load(self, device: str, dtype: str) -> nn.Module:
        if not self.is_base:
            return self.target.load(dtype, "sdpa", device, merge=True)
        model, fresh = self.target.base.load_for(self.objective.head, dtype)
        if fresh:
            raise LorakitError(
                f"the base {self.target.base.identity} has no {self.objective.head.task} head to compare with "
                f"({fresh[0]} came with the training). Compare with another trained target: --against OTHER."
            )
        return model.to(device).eval().requires_grad_(False)  # type: ignore[no-any-return]


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
        against: ``base`` for the model `target` was trained on, or another target with the same objective.
        base: Base of an adapter that does not say where it is.
        columns: Role -> column of the file, where names differ.
        rows: Measure on a seeded sample of this many rows (of text-to-text: sources).
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
    opened = open_target(str(target), base=base)
    read, format, notes = evaluation_rows.read(settings, opened, rows, seed)
    subjects = [_Subject(str(target), opened, _objective(opened, format, settings))]
    if against is not None:
        subjects.append(_other(subjects[0], str(against), format, settings))
    for subject in subjects:
        evaluation_rows.check_labels(read, format, subject.objective.head, subject.name)
    notes = [*(note for subject in subjects for note in subject.target.notes), *notes]
    read, left_out = evaluation_rows.read_by_all([subject.objective for subject in subjects], read)
    placed = place(device, dtype, *(subject.target.base.family for subject in subjects))
    sides = [_measured(subject, read, placed, on_done) for subject in subjects]
    return _evaluation(subjects, sides, read, seed, (*notes, *left_out))


def _evaluation(
    subjects: Sequence[_Subject], sides: Sequence[Measured], rows: Sequence[Row], seed: int, notes: Sequence[str]
) -> Evaluation:
    objective = subjects[0].objective
    drawn = [sampled(side.measures, side.units, seed) for side in sides]
    scored = [
        Side(subject.name, {name: one.score for name, one in scores.items()}, side.table, side.confusion)
        for subject, side, scores in zip(subjects, sides, drawn, strict=True)
    ]
    comparable, said = _comparable(subjects, drawn)
    names = dict.fromkeys(row.source for row in rows)
    told = [f"{subject.name}: {note}" for subject, side in zip(subjects, sides, strict=True) for note in side.notes]
    return Evaluation(
        objective=objective.name,
        rows=len(rows),
        units=sides[0].units,
        origin=", ".join(list(names)[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else ""),
        data=fingerprint(rows),
        target=scored[0],
        against=scored[1] if len(scored) > 1 else None,
        differences={name: (drawn[0][name] - drawn[1][name]).score for name in comparable},
        labels=objective.head.labels,
        signatures=sides[0].signatures,
        notes=(*notes, *told, *said),
    )


def _comparable(subjects: Sequence[_Subject], drawn: Sequence[Mapping[str, Sampled]]) -> tuple[list[str], list[str]]:
    """Return the measures that two models can be compared by, and what is to be said of the others."""
    if len(subjects) < 2:
        return [], []
    shared = [name for name in drawn[0] if name in drawn[1]]
    one, other = (tokenizer_fingerprint(subject.target.tokenizer) for subject in subjects)
    dropped = [name for name in shared if name in OF_TOKENS] if one != other else []
    said = [f"the two cut text into other tokens: {', '.join(dropped)} cannot be compared"] if dropped else []
    return [name for name in shared if name not in dropped], said


def _objective(target: Target, format: Format, settings: DataSettings, task: Any = None) -> Objective:
    limit, asked = target.base.max_positions, settings.max_length
    if asked is not None and limit is not None and asked > limit:
        raise DataError(
            f"data.max_length is {asked:,}, and {target.base.identity} has {limit:,} positions. Give at most {limit:,}."
        )
    return tasks.objective_of(target, format.name, asked, settings.too_long, task)


def _other(one: _Subject, against: str, format: Format, settings: DataSettings) -> _Subject:
    """Return the model to compare with."""
    if against == BASE:
        plain = _base_of(one)
        return _Subject(BASE, plain, _objective(plain, format, settings, tasks.settings_of(one.target)), is_base=True)
    opened = open_target(against)
    other = _Subject(against, opened, _objective(opened, format, settings))
    if other.objective.name != one.objective.name:
        raise LorakitError(
            f"{one.name} learned {one.objective.name} and {against} {other.objective.name}: no measure is of both. "
            f"Evaluate them one after the other."
        )
    return other


def _base_of(subject: _Subject) -> Target:
    target = subject.target
    if target.form in ("lora", "changed"):
        base = target.base.original
        return replace(target, base=base, folder=base.folder, form="base", manifest=None, adapter=None, notes=[])
    if target.manifest is None or target.form == "base":
        raise LorakitError(
            f"{subject.name} is a base model itself; --against base compares what was trained with what it was trained "
            f"on. Give another target: --against OTHER."
        )
    identity = target.manifest.base.identity
    known = read_local(target.folder).get("base") if identity.startswith("local:") else identity
    if known is None:
        raise LorakitError(
            f"{subject.name} was trained on a folder named {identity.removeprefix('local:')!r}, which is not known on "
            f"this computer: give it, --against FOLDER."
        )
    return open_target(known, target.manifest.base.revision)


def _measured(subject: _Subject, rows: Sequence[Row], placed: tuple[str, str], on_done: Tell | None) -> Measured:
    tell = on_done if on_done is not None else (lambda done, total: None)
    return measure(subject.target, subject.objective, subject.load(*placed), rows, tell)


def _as_json(scores: Mapping[str, Score]) -> dict[str, Any]:
    return {name: score.as_json() for name, score in scores.items()}
