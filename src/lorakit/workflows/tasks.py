"""The objective of a run or of a trained target, made from what the recipe or the manifest says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from pydantic import TypeAdapter

from lorakit import objectives
from lorakit.adapters.bundle import Target
from lorakit.checkpoints.finding import Checkpoint
from lorakit.data import encoding
from lorakit.data.settings import DataSettings
from lorakit.errors import DataError
from lorakit.objectives.class_labels import names_in, problem_of
from lorakit.objectives.settings import ObjectiveSettings, default
from lorakit.objectives.tags import repaired
from lorakit.types import FormatName, Job, Objective, Problem, PromptStyle, Row, TooLong

LONGEST = 2048
"""Longest example where neither the recipe nor the checkpoint bounds it, in tokens."""

_PROBLEMS: dict[str | None, Problem] = {
    None: "single_label_classification",
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}

_OF_HEAD = {"masked_lm_nsp": "masked_lm"}


def chosen(asked: Any, format: FormatName, checkpoint: Checkpoint) -> Any:
    """Return the settings of the objective: those asked for, else the defaults of the one that fits the rows.

    Args:
        asked: Section `objective` of the recipe, or None.
        format: What the rows hold.
        checkpoint: The model.

    Raises:
        DataError: The objective does not read such rows, or does not fit the kind of model.
    """
    kind = checkpoint.family.kind
    if asked is None:
        return default(objectives.choose(format, kind))
    if kind not in objectives.KINDS[asked.name]:
        fitting = [name for name, kinds in objectives.KINDS.items() if kind in kinds]
        raise DataError(
            f"objective {asked.name} is for {' and '.join(objectives.KINDS[asked.name])} models, and "
            f"{checkpoint.identity} is of type {checkpoint.family.model_type}, an {kind.replace('_', '-')}: choose "
            f"{', '.join(fitting)}."
        )
    if format not in objectives.FORMATS[asked.name]:
        raise DataError(
            f"objective {asked.name} reads rows of the format {', '.join(objectives.FORMATS[asked.name])}, and these "
            f"are of the format {format}. Leave objective out, or name the columns with data.columns."
        )
    return asked


def resolved(
    settings: Any, rows: Sequence[Row], target: Target, *, held: Sequence[Row] = (), streamed: bool = False
) -> Any:
    """Return `settings` with what the training rows decide: names of labels, kind of problem, class weights.

    An adapter that is gone on from keeps its labels.

    Args:
        settings: Of the objective.
        rows: Canonical training rows.
        target: What is trained on.
        held: Canonical evaluation rows, for messages.
        streamed: Whether these are only the first of the rows.

    Raises:
        DataError: The rows decide nothing, contradict the recipe, or are too few to decide it.
    """
    objective = objectives.load(settings.name)
    earlier = target.manifest.head.labels if target.manifest is not None and target.form in ("lora", "changed") else ()
    if earlier and getattr(settings, "labels", ()) is None:
        settings = settings.model_copy(update={"labels": list(earlier)})
    if streamed:
        _check_named(settings, rows)
    return objective.resolved(settings, rows, held) if hasattr(objective, "resolved") else settings


def unlearned(settings: Any, rows: Sequence[Row]) -> list[str]:
    """Return a line about labels that `settings` names and no training row has; none where there is no such label."""
    if not getattr(settings, "labels", None) or getattr(settings, "problem", None) == "regression":
        return []
    seen = set(_names(settings, rows))
    missing = [repr(label) for label in settings.labels if label not in seen]
    if not missing:
        return []
    listed = ", ".join(missing[:8]) + (f" and {len(missing) - 8:,} more" if len(missing) > 8 else "")
    return [f"no training row has {len(missing):,} of the {len(settings.labels):,} labels: {listed}"]


def _names(settings: Any, rows: Sequence[Row]) -> Iterator[str]:
    """Yield the labels of rows, or their tags as they are learned."""
    for row in rows:
        if settings.name == "sequence_classification":
            yield from names_in(row)
        else:
            tags = row.fields["tags"]
            yield from repaired(tags)[0] if settings.broken_tags == "repair" else tags


def _check_named(settings: Any, rows: Sequence[Row]) -> None:
    """Refuse to take from the first rows of a stream what all rows decide: later ones may hold other labels."""
    of_texts = settings.name == "sequence_classification"
    if not (of_texts or settings.name == "token_classification"):
        return
    if of_texts and problem_of(rows, settings) == "regression":
        return
    named = f"--set objective.name={settings.name} --set"
    if settings.labels is None:
        first = dict.fromkeys(_names(settings, rows))
        raise DataError(
            f"the first rows have the labels {', '.join(map(repr, list(first)[:5]))}, and a stream may "
            f"hold others later: name all of them, {named} 'objective.labels=[ONE, TWO, ...]', or leave out "
            "data.stream."
        )
    if of_texts and settings.class_weights == "balanced":
        raise DataError(
            "objective.class_weights is balanced, and how frequent each label is in a stream is not known before its "
            f"end: give weights by name, {named} 'objective.class_weights={{ONE: 1.0, TWO: 5.0}}', or leave out "
            "data.stream."
        )


def job(
    target: Target,
    settings: Any,
    format: FormatName,
    style: PromptStyle,
    max_length: int | None = None,
    *,
    too_long: TooLong = "error",
    label_logits_only: bool = True,
    seed: int = 0,
) -> Job:
    """Put together what an objective may ask about model, rows and recipe."""
    checkpoint = target.base
    return Job(
        settings=settings,
        tokenizer=target.tokenizer,
        family=checkpoint.family,
        config=checkpoint.config,
        format=format,
        style=style,
        max_length=max_length or min(checkpoint.max_positions or LONGEST, LONGEST),
        positions=checkpoint.max_positions,
        labels=tuple(getattr(settings, "labels", None) or ()),
        problem=_PROBLEMS[settings.problem] if settings.name == "sequence_classification" else None,
        too_long=too_long,
        label_logits_only=label_logits_only,
        seed=seed,
    )


def style_of(target: Target, settings: Any, format: FormatName) -> PromptStyle:
    """Return how rows are framed."""
    if settings.name == "causal_lm":
        return encoding.style_for(format, target.tokenizer, settings.separator)
    return PromptStyle(format=format)


def normalisation(target: Target, settings: DataSettings | None = None) -> Literal["nfc"] | None:
    """Return in which form a target reads text: the one that `settings` name, otherwise that of its training."""
    if settings is not None and "normalise" in settings.model_fields_set:
        return settings.normalise
    return target.manifest.normalise if target.manifest is not None else None


def settings_of(target: Target) -> Any:
    """Return the settings of the objective a target was trained for; of a base, those its head speaks of."""
    manifest = target.manifest
    if manifest is not None and manifest.task:
        return TypeAdapter(ObjectiveSettings).validate_python(dict(manifest.task))
    head = target.head
    values: dict[str, Any] = {"name": _OF_HEAD.get(head.task, head.task)}
    if head.task == "masked_lm_nsp":
        values["nsp"] = True
    if head.labels:
        values["labels"] = list(head.labels)
    if head.problem is not None:
        values["problem"] = next(word for word, problem in _PROBLEMS.items() if word and problem == head.problem)
    return TypeAdapter(ObjectiveSettings).validate_python(values)


def objective_of(
    target: Target,
    format: FormatName | None = None,
    max_length: int | None = None,
    too_long: TooLong = "error",
    settings: Any = None,
) -> Objective:
    """Return the objective a target was trained for, or that a base's own head speaks of.

    Args:
        target: Opened.
        format: Of the rows to come; None: the first that the objective reads.
        max_length: Longest example in tokens; None: what the model reads at most.
        too_long: What is done with longer rows.
        settings: In place of those of the target.
    """
    settings = settings or settings_of(target)
    format = format or _format_of(target, settings)
    style = target.style if target.style.format == format else style_of(target, settings, format)
    return objectives.make(settings.name, job(target, settings, format, style, max_length, too_long=too_long))


def _format_of(target: Target, settings: Any) -> FormatName:
    reads = objectives.FORMATS[settings.name]
    return target.style.format if target.style.format in reads else reads[0]
