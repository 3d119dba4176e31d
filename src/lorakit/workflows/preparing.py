"""From a recipe to everything the loop needs: checkpoint, rows, examples, a model with some weights learning."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from lorakit import objectives
from lorakit.adapters.bundle import Target, open_target
from lorakit.checkpoints import new_tokens
from lorakit.checkpoints.finding import Checkpoint
from lorakit.data.batching import FixedPlan, Plan, StreamPlan
from lorakit.data.readers.faults import counted
from lorakit.errors import DataError, LorakitError
from lorakit.recipe import Recipe
from lorakit.types import DataReport, Example, Format, Job, Objective, PromptStyle, Row
from lorakit.workflows import kept_rows, tasks
from lorakit.workflows.encoding import Encoded, fingerprint
from lorakit.workflows.launching import by_first
from lorakit.workflows.streaming import Stream


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
    evaluation: Sequence[Example]
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
    recalled: bool = False
    """Whether an earlier start encoded them."""
    amiss: list[str] = field(default_factory=list)
    """What is not as it should be but stops nothing: said also where little is said."""

    def stamps(self) -> dict[str, tuple[int, str]]:
        """Return how many rows there are and their fingerprint, by side; of a stream the evaluation rows alone."""
        evaluation = (len(self.evaluation_rows), fingerprint(self.evaluation_rows))
        learned = {} if self.fingerprint is None else {"training": (self.report.rows, self.fingerprint)}
        return {**learned, "evaluation": evaluation}

    def streamed(self) -> list[str]:
        """Return what is to be said about rows that were read while training."""
        return self.stream.told() if self.stream is not None else []


def prepare_rows(recipe: Recipe, keep: bool = True, accelerator: Any = None) -> Rows:
    """Find the checkpoint, read the rows, recognise and encode them, or take up what an earlier start made of them.

    Args:
        recipe: As it was asked for.
        keep: Whether encoded rows are kept for later starts (`speed.tokens`).
        accelerator: Of this process; several share the encoding of a stream.

    Raises:
        CheckpointError: The model cannot be found or used.
        DataError: The rows cannot be read, understood, or learned from.
    """
    target, notes = _target(recipe)
    recipe = _as_trained(recipe, target)

    def make(settings: Any, format: Format) -> Objective:
        return objectives.make(settings.name, _job(recipe, target, settings, format))

    def encode() -> tuple[Encoded, str, str]:
        return kept_rows.encoded(recipe, target, make, keep)

    # Of a stream nothing is kept where other processes would find it.
    encoded, told, amiss = by_first(accelerator, encode) if recipe.data.stream else encode()
    understood = encoded.understood
    settings, format, report = understood.settings, understood.format, understood.report
    objective = make(settings, format)
    stream = Stream(recipe, objective, format, accelerator) if recipe.data.stream else None
    tokens, step_rows = _step_size(recipe, objective)
    plan = _plan(recipe, encoded.training, stream, tokens, step_rows)
    report.notes = [*notes, *report.notes, *([told] if told else []), *(_one_step(plan, report) if plan.whole else [])]
    job = _job(recipe, target, settings, format)
    return Rows(
        target=target,
        checkpoint=target.base,
        format=format,
        settings=settings,
        style=job.style,
        objective=objective,
        plan=plan,
        evaluation=encoded.evaluation,
        evaluation_rows=understood.evaluation_rows,
        report=report,
        fingerprint=understood.fingerprint,
        max_length=job.max_length,
        tokens_per_step=tokens,
        rows_per_step=step_rows,
        stream=stream,
        normalise=recipe.data.normalise,
        recalled=encoded.recalled,
        amiss=[amiss] if amiss else [],
    )


def _job(recipe: Recipe, target: Target, settings: Any, format: Format) -> Job:
    """Return what the objective of the run is made for."""
    return tasks.job(
        target,
        settings,
        format.name,
        _checked_style(target, tasks.style_of(target, settings, format.name)),
        _max_length(recipe, target.base),
        too_long=recipe.data.too_long,
        label_logits_only=recipe.speed.logits,
        seed=recipe.train.seed,
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


def _one_step(plan: Plan, report: DataReport) -> list[str]:
    """Return a line about steps that could hold more rows than there are."""
    key, asked = "train.tokens_per_step", plan.tokens_per_step or 0
    size = f", which have {report.tokens:,} tokens"
    if plan.rows_per_step is not None:
        key, asked, size = "train.rows_per_step", plan.rows_per_step, ""
    return [
        f"{key} is {asked:,}: a step takes all {counted(report.rows, 'row')}{size}, so that an epoch is one step. "
        f"More steps come from a smaller {key} or more train.epochs."
    ]
