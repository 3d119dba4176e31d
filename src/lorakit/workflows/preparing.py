"""From a recipe to everything the loop needs: checkpoint, rows, examples, a model with some weights learning."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from lorakit import objectives
from lorakit.adapters.bundle import Target, open_target
from lorakit.checkpoints.finding import Checkpoint
from lorakit.data import encoding, formats, sources, splitting
from lorakit.data import report as reports
from lorakit.data.batching import FixedPlan, Plan, StreamPlan
from lorakit.data.settings import SourceSettings
from lorakit.errors import DataError, LorakitError
from lorakit.objectives.settings import CausalLMSettings
from lorakit.recipe import Recipe
from lorakit.types import DataReport, Example, Format, Objective, PromptStyle, Row

if TYPE_CHECKING:
    from lorakit.data.encoding import TextEncoder

_LONGEST = 2048
"""Longest example where neither the recipe nor the checkpoint bounds it, in tokens."""


@dataclass
class Rows:
    """The rows of a run, read, understood and encoded; no model is needed for this."""

    target: Target
    """What `model` named: a base, or an adapter to go on from."""
    checkpoint: Checkpoint
    format: Format
    encoder: TextEncoder
    objective: Objective
    plan: Plan
    evaluation: list[Example]
    evaluation_rows: list[Row]
    report: DataReport
    fingerprint: str
    """``sha256:…`` of the training rows."""
    max_length: int
    notes: list[str] = field(default_factory=list)

    @property
    def style(self) -> PromptStyle:
        """How prompts are framed."""
        return self.encoder.style


def prepare_rows(recipe: Recipe) -> Rows:
    """Find the checkpoint, read the rows, recognise and encode them.

    Raises:
        CheckpointError: The model cannot be found or used.
        DataError: The rows cannot be read, understood, or learned from.
    """
    target = open_target(recipe.model.name, recipe.model.revision)
    checkpoint, data, seed = target.base, recipe.data, recipe.train.seed
    notes = [*target.notes]
    if data.stream:
        first = list(islice(sources.stream(data.train, data, seed=seed, notes=notes), 100))
        train_rows: list[Row] = first
    else:
        reading = sources.read(data.train, data, seed=seed)
        train_rows = reading.rows
        notes += reading.notes
    format = formats.recognise(train_rows, data.columns)
    train_rows, canonical_notes = formats.canonical(train_rows, format, data.broken)
    notes += canonical_notes
    train_rows, evaluation_rows, split_notes = _split(recipe, train_rows, format)
    notes += split_notes

    settings = recipe.objective or CausalLMSettings()
    max_length = _max_length(recipe, checkpoint)
    style = _style(target, format, settings)
    encoder = encoding.TextEncoder(target.tokenizer, style)
    objective = objectives.load(settings.name)(
        settings=settings,
        encoder=encoder,
        max_length=max_length,
        too_long=data.too_long,
        label_logits_only=recipe.speed.logits,
    )
    training = objective.encode(train_rows)
    evaluation = objective.encode(evaluation_rows)
    if not training or not evaluation:
        side = "training" if not training else "evaluation"
        raise DataError(f"no {side} row is left after reading and checking; see the notes with --dry-run.")
    report = reports.examine(training, train_rows, evaluation_rows, format)
    report.notes = [*notes, *objective.notes, *report.notes]
    return Rows(
        target,
        checkpoint,
        format,
        encoder,
        objective,
        _plan(recipe, objective, training, format),
        evaluation,
        evaluation_rows,
        report,
        fingerprint(train_rows),
        max_length,
    )


def fingerprint(rows: Iterable[Row]) -> str:
    """Return ``sha256:…`` of the rows' contents in order, wherever they were read from."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(dict(row.fields), ensure_ascii=False, sort_keys=True).encode())
        digest.update(b"\n")
    return f"sha256:{digest.hexdigest()}"


def _split(recipe: Recipe, rows: list[Row], format: Format) -> tuple[list[Row], list[Row], list[str]]:
    """Return training rows, evaluation rows and what is to be said about them."""
    data, seed = recipe.data, recipe.train.seed
    notes: list[str] = []
    share = 0.1 if data.eval is None else data.eval
    if isinstance(share, float):
        train_rows, evaluation_rows = splitting.split(rows, format, share, seed)
    else:
        _refuse_same_file(data.train, share)
        reading = sources.read(share, data, seed=seed)
        evaluation_rows, canonical_notes = formats.canonical(
            reading.rows, formats.recognise(reading.rows, data.columns), data.broken
        )
        train_rows, notes = rows, [*reading.notes, *canonical_notes]
    if data.rows is not None:
        train_rows, sample_notes = _sampled(train_rows, data.rows, seed, "training")
        notes += sample_notes
    if data.eval_rows is not None:
        evaluation_rows, sample_notes = _sampled(evaluation_rows, data.eval_rows, seed, "evaluation")
        notes += sample_notes
    return train_rows, evaluation_rows, notes


def _sampled(rows: list[Row], count: int, seed: int, kind: str) -> tuple[list[Row], list[str]]:
    if count >= len(rows):
        return rows, [f"{count:,} {kind} rows asked for, {len(rows):,} there: all are used"]
    return splitting.sample(rows, count, seed), [f"{count:,} of {len(rows):,} {kind} rows, a seeded sample"]


def _refuse_same_file(train: Any, evaluation: str | SourceSettings) -> None:
    path = evaluation if isinstance(evaluation, str) else evaluation.path
    for one in train if isinstance(train, list) else [train]:
        if (one if isinstance(one, str) else one.path) == path and path != "-":
            raise DataError(
                f"data.train and data.eval are the same file, {path}: the score would be that of remembering. "
                f"Leave data.eval out, or give a share such as 0.1."
            )


def _max_length(recipe: Recipe, checkpoint: Checkpoint) -> int:
    limit = checkpoint.max_positions
    asked = recipe.data.max_length
    if asked is not None and limit is not None and asked > limit:
        raise DataError(
            f"data.max_length is {asked:,}, and {checkpoint.identity} has {limit:,} positions. Give at most {limit:,}."
        )
    return asked or min(limit or _LONGEST, _LONGEST)


def _style(target: Target, format: Format, settings: CausalLMSettings) -> PromptStyle:
    """Return how prompts are framed; an adapter that is trained on keeps its own way."""
    style = encoding.style_for(format.name, target.tokenizer, settings.separator)
    earlier = target.manifest.style if target.manifest is not None else None
    if target.form in ("lora", "changed") and earlier is not None and earlier != style:
        raise LorakitError(
            f"{target.folder} was trained on {earlier.format!r} rows framed with separator {earlier.separator!r}; "
            f"these are {style.format!r} with {style.separator!r}. Merge first: lorakit merge {target.folder} -o DIR"
        )
    return style


def _plan(recipe: Recipe, objective: Any, training: Sequence[Example], format: Format) -> Plan:
    train, data = recipe.train, recipe.data
    tokens = None if train.rows_per_step is not None else (train.tokens_per_step or 8192)
    if not data.stream:
        return FixedPlan(training, train.seed, train.epochs, tokens, train.rows_per_step, train.max_steps)
    if train.max_steps is None:
        raise DataError("data.stream needs train.max_steps: the number of rows is not known before they are read.")
    return StreamPlan(
        _reader(recipe, objective, format), train.seed, train.max_steps, data.stream_buffer, tokens, train.rows_per_step
    )


def _reader(recipe: Recipe, objective: Any, format: Format) -> Callable[[], Iterator[Example]]:
    """Return a function that reads, checks and encodes training rows, a few hundred at a time."""
    data = recipe.data

    def read() -> Iterator[Example]:
        rows = sources.stream(data.train, data, seed=recipe.train.seed)
        first = 0
        while part := list(islice(rows, 256)):
            canonical, _ = formats.canonical(part, format, data.broken)
            yield from objective.encode(canonical, first)
            first += len(part)

    return read
