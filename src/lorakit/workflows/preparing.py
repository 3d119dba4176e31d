"""From a recipe to everything the loop needs: checkpoint, rows, examples, a model with some weights learning."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Literal

from lorakit import objectives
from lorakit.adapters.bundle import Target, open_target
from lorakit.checkpoints import new_tokens
from lorakit.checkpoints.finding import Checkpoint
from lorakit.data import formats, sources, splitting
from lorakit.data import report as reports
from lorakit.data.batching import FixedPlan, Plan, StreamPlan
from lorakit.data.readers.faults import counted
from lorakit.data.settings import DataSettings
from lorakit.errors import DataError, LorakitError
from lorakit.recipe import Recipe
from lorakit.types import DataReport, Example, Format, FormatName, Objective, PromptStyle, Row
from lorakit.workflows import tasks
from lorakit.workflows.streaming import Stream

_SAMPLE = 100
"""Rows of a stream that are looked at before training."""


@dataclass
class Rows:
    """The rows of a run, read, understood and encoded; no model is needed for this."""

    target: Target
    """What `model` named: a base, or an adapter to go on from."""
    checkpoint: Checkpoint
    format: Format
    settings: Any
    """Of the objective, with what the rows decided: labels, kind of problem."""
    style: PromptStyle
    """How prompts are framed."""
    objective: Objective
    plan: Plan
    evaluation: list[Example]
    evaluation_rows: list[Row]
    report: DataReport
    fingerprint: str | None
    """``sha256:…`` of the training rows; None for a stream."""
    max_length: int
    tokens_per_step: int | None
    """Tokens of an optimizer step; None where it is counted in rows."""
    rows_per_step: int | None
    stream: Stream | None = None
    normalise: Literal["nfc"] | None = None
    """``nfc`` where letters of all rows were composed."""

    def stamps(self) -> dict[str, tuple[int, str]]:
        """Return how many rows there are and their fingerprint, by side; of a stream the evaluation rows alone."""
        evaluation = (len(self.evaluation_rows), fingerprint(self.evaluation_rows))
        learned = {} if self.fingerprint is None else {"training": (self.report.rows, self.fingerprint)}
        return {**learned, "evaluation": evaluation}

    def streamed(self) -> list[str]:
        """Return what is to be said about rows that were read while training."""
        return self.stream.told() if self.stream is not None else []


def prepare_rows(recipe: Recipe) -> Rows:
    """Find the checkpoint, read the rows, recognise and encode them.

    Raises:
        CheckpointError: The model cannot be found or used.
        DataError: The rows cannot be read, understood, or learned from.
    """
    target, notes = _target(recipe)
    recipe = _as_trained(recipe, target)
    checkpoint, data = target.base, recipe.data
    train_rows, read_notes = _read(data, recipe.train.seed)
    notes += read_notes
    accepted = objectives.FORMATS[recipe.objective.name] if recipe.objective is not None else None
    format = formats.recognise(train_rows, data.columns, accepted)
    settings = tasks.chosen(recipe.objective, format.name, checkpoint)
    train_rows, canonical_notes = _canonical(data, train_rows, format)
    notes += canonical_notes
    train_rows, evaluation_rows, split_notes = _split(recipe, train_rows, format, accepted)
    notes += split_notes
    # Of the rows that learn alone: a label that others have cannot be learned.
    settings = tasks.resolved(settings, train_rows, target, held=evaluation_rows, streamed=data.stream)
    notes += tasks.unlearned(settings, train_rows) if not data.stream else []

    max_length = _max_length(recipe, checkpoint)
    style = _checked_style(target, tasks.style_of(target, settings, format.name))
    made_for = tasks.job(
        target,
        settings,
        format.name,
        style,
        max_length,
        too_long=data.too_long,
        label_logits_only=recipe.speed.logits,
        seed=recipe.train.seed,
    )
    objective = objectives.make(settings.name, made_for)
    training = objective.encode(train_rows)
    evaluation = objective.encode(evaluation_rows)
    _check_left(training, evaluation, [*notes, *objective.notes])
    report = reports.examine(training, train_rows, evaluation_rows, format, objective.learned, target.tokenizer)
    report.notes = [*notes, *objective.notes, *report.notes]
    stream = Stream(recipe, objective, format) if data.stream else None
    tokens, step_rows = _step_size(recipe, objective)
    return Rows(
        target=target,
        checkpoint=checkpoint,
        format=format,
        settings=settings,
        style=style,
        objective=objective,
        plan=_plan(recipe, training, stream, tokens, step_rows),
        evaluation=evaluation,
        evaluation_rows=evaluation_rows,
        report=report,
        fingerprint=fingerprint(train_rows) if stream is None else None,
        max_length=max_length,
        tokens_per_step=tokens,
        rows_per_step=step_rows,
        stream=stream,
        normalise=recipe.data.normalise,
    )


def _target(recipe: Recipe) -> tuple[Target, list[str]]:
    """Return what `model` names, with the tokens the recipe adds, and what is to be said about it."""
    target = open_target(recipe.model.name, recipe.model.revision)
    if recipe.model.add_tokens is None:
        return target, [*target.notes]
    larger, told = target.with_tokens(new_tokens.read(recipe.model.add_tokens))
    return larger, [*target.notes, *told]


def _as_trained(recipe: Recipe, target: Target) -> Recipe:
    """Return the recipe with letters composed where the training of `target` composed them."""
    if recipe.data.normalise is not None:
        return recipe
    data = recipe.data.model_copy(update={"normalise": tasks.normalisation(target)})
    return recipe.model_copy(update={"data": data})


def _read(data: DataSettings, seed: int) -> tuple[list[Row], list[str]]:
    """Return the rows to train on, of a stream the first ones, and what is to be said about them."""
    if data.stream:
        rows = list(islice(sources.stream(data.train, data, seed=seed), _SAMPLE))
        return rows, [f"rows are read while training; what is counted here are the first {len(rows):,}"]
    reading = sources.read(data.train, data, seed=seed)
    return reading.rows, [*reading.notes]


def fingerprint(rows: Iterable[Row]) -> str:
    """Return ``sha256:…`` of the rows' contents in order, wherever they were read from."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(dict(row.fields), ensure_ascii=False, sort_keys=True).encode())
        digest.update(b"\n")
    return f"sha256:{digest.hexdigest()}"


def _canonical(data: DataSettings, rows: list[Row], format: Format) -> tuple[list[Row], list[str]]:
    names = formats.label_names(data.label_names)
    return formats.canonical(rows, format, data.broken, normalise=data.normalise, label_names=names)


def _split(
    recipe: Recipe, rows: list[Row], format: Format, accepted: tuple[FormatName, ...] | None
) -> tuple[list[Row], list[Row], list[str]]:
    """Return training rows, evaluation rows and what is to be said about them."""
    data, seed = recipe.data, recipe.train.seed
    notes: list[str] = []
    share = 0.1 if data.eval is None else data.eval
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


def _max_length(recipe: Recipe, checkpoint: Checkpoint) -> int:
    limit = checkpoint.max_positions
    asked = recipe.data.max_length
    if asked is not None and limit is not None and asked > limit:
        raise DataError(
            f"data.max_length is {asked:,}, and {checkpoint.identity} has {limit:,} positions. Give at most {limit:,}."
        )
    return asked or min(limit or tasks.LONGEST, tasks.LONGEST)


def _checked_style(target: Target, style: PromptStyle) -> PromptStyle:
    """Return how prompts are framed; an adapter that is trained on keeps its own way."""
    earlier = target.manifest.style if target.manifest is not None else None
    if target.form in ("lora", "changed") and earlier is not None and earlier != style:
        before, now = asdict(earlier), asdict(style)
        differing = [f"{key}: {before[key]!r} then, {now[key]!r} now" for key in now if before[key] != now[key]]
        raise LorakitError(
            f"{target.folder} was trained on rows that were framed in another way ({'; '.join(differing)}). Give rows "
            f"of that kind, or merge it first and train on the merged model: "
            f"lorakit merge {shlex.quote(str(target.folder))} -o DIR"
        )
    return style


def _step_size(recipe: Recipe, objective: Objective) -> tuple[int | None, int | None]:
    """Return tokens and rows of an optimizer step, one of which is None.

    Rows that are judged, not written, teach few things each however long they are, so their steps count rows.
    """
    train = recipe.train
    if train.rows_per_step is not None or train.tokens_per_step is not None:
        return train.tokens_per_step, train.rows_per_step
    judged = ("sequence_classification", "token_classification", "question_answering")
    return (None, 32) if objective.head.task in judged else (8192, None)


def _plan(
    recipe: Recipe, training: Sequence[Example], stream: Stream | None, tokens: int | None, rows: int | None
) -> Plan:
    train = recipe.train
    if stream is None:
        return FixedPlan(training, train.seed, train.epochs, tokens, rows, train.max_steps)
    if train.max_steps is None:
        raise DataError("data.stream needs train.max_steps: the number of rows is not known before they are read.")
    return StreamPlan(stream.read, train.seed, train.max_steps, recipe.data.stream_buffer, tokens, rows)
