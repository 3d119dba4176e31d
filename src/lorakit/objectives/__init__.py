"""WHAT is learned, a file each."""

from __future__ import annotations

import importlib
from typing import Any

from lorakit.errors import DataError
from lorakit.families import Kind
from lorakit.types import FormatName, Job, Objective

OBJECTIVES = {
    "causal_lm": "lorakit.objectives.causal_lm:CausalLM",
    "masked_lm": "lorakit.objectives.masked_lm:MaskedLM",
    "span_corruption": "lorakit.objectives.span_corruption:SpanCorruption",
    "seq2seq_lm": "lorakit.objectives.seq2seq_lm:Seq2SeqLM",
    "sequence_classification": "lorakit.objectives.sequence_classification:SequenceClassification",
    "token_classification": "lorakit.objectives.token_classification:TokenClassification",
    "question_answering": "lorakit.objectives.question_answering:QuestionAnswering",
}
"""Name in a recipe -> module and class, imported on use."""

FORMATS: dict[str, tuple[FormatName, ...]] = {
    "causal_lm": ("text", "prompt_completion", "chat"),
    "masked_lm": ("text",),
    "span_corruption": ("text",),
    "seq2seq_lm": ("source_target", "prompt_completion", "extractive"),
    "sequence_classification": ("labelled",),
    "token_classification": ("tagged",),
    "question_answering": ("extractive",),
}
"""Objective -> the formats of rows that it reads."""

KINDS: dict[str, tuple[Kind, ...]] = {
    "causal_lm": ("decoder",),
    "masked_lm": ("encoder",),
    "span_corruption": ("encoder_decoder",),
    "seq2seq_lm": ("encoder_decoder",),
    "sequence_classification": ("encoder", "decoder", "encoder_decoder"),
    "token_classification": ("encoder", "decoder", "encoder_decoder"),
    "question_answering": ("encoder", "decoder", "encoder_decoder"),
}
"""Objective -> the kinds of model that it trains."""


def load(name: str) -> Any:
    """Import the class of an objective."""
    module, _, class_name = OBJECTIVES[name].partition(":")
    return getattr(importlib.import_module(module), class_name)


def make(name: str, job: Job) -> Objective:
    """Return the objective `name`, made for `job`."""
    return load(name).of(job)


def choose(format: FormatName, kind: Kind) -> str:
    """Return the objective of rows of a format on a kind of model, where the recipe names none: the first that fits.

    Raises:
        DataError: No objective learns such rows on such a model.
    """
    for name in OBJECTIVES:
        if format in FORMATS[name] and kind in KINDS[name]:
            return name
    learned = sorted({read for name in OBJECTIVES if kind in KINDS[name] for read in FORMATS[name]})
    raise DataError(
        f"rows of the format {format} cannot be learned by this model, which is of the kind {kind.replace('_', '-')} "
        f"and learns {', '.join(learned)}. Name columns of such a format in data.columns, or give another model."
    )
