"""What two models are compared on: rows the run was evaluated on where they are at hand, else a few sentences."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorakit import objectives
from lorakit.adapters.bundle import Target
from lorakit.adapters.manifest import read_local
from lorakit.checkpoints import heads, weights
from lorakit.data import formats, sources, splitting
from lorakit.data.settings import DataSettings, SourceSettings
from lorakit.errors import DataError
from lorakit.objectives.settings import default
from lorakit.recipe import Recipe, check
from lorakit.types import Example, FormatName, Objective, Problem, Row
from lorakit.workflows import tasks

SENTENCES = (
    "The river was high that spring, and nobody crossed the bridge after dark.",
    "Question: What do bees make? Answer: Honey, which they keep in combs of wax.",
    "name: The Mill | food: Italian | area: riverside",
    "Once there was a small house at the edge of the forest.",
    "서울은 대한민국의 수도이며, 한강이 도시를 가로질러 흐른다.",
    "질문: 오늘 날씨가 어때요? 답: 맑고 바람이 조금 불어요.",
)
"""Shipped for where no rows are known."""

_ROWS = 16
_LONGEST = 1024
"""Longest probe in tokens where nothing bounds the positions."""
_PREDICTIONS = 64
"""Fewest that are compared, where there are so many."""
_TOKENS, _MULTIPLIED = 256, 10**11
"""Tokens read, at least, and weights that they may be multiplied by in all: two seconds of one core."""
_FEWEST_NEW, _MOST_NEW, _READ = 8, 24, 2 * 10**9
"""Tokens written after each probe, at least and at most, and weights that may be read for it: two seconds again."""


@dataclass(frozen=True)
class Probes:
    """Examples to compare two models on."""

    examples: list[Example]
    objective: Objective
    """Made for the target; reads the examples."""
    origin: str
    """Where they come from, for the screen."""
    new_tokens: int
    """Longest text to write after each; 0 where the model writes none."""
    notes: tuple[str, ...] = ()


def probes_for(target: Target, data: str | None = None) -> Probes:
    """Return what to compare on: rows given, the run's own evaluation rows, or the shipped sentences.

    All weights take part in each token, so that a large model is compared on fewer of them.

    Args:
        target: The adapter or model; its framing of prompts is used.
        data: A file of rows; None: what local.json knows of the run.

    Raises:
        DataError: The rows given cannot be read or hold no label.
    """
    recipe, missing = _own_recipe(target) if data is None else (None, ())
    if data is not None:
        (rows, kind), origin = _read(DataSettings(train=data), None, 0, _accepted(target)), f"rows of {Path(data).name}"
    elif recipe is not None:
        (rows, kind), origin = (
            _read(recipe.data, recipe.data.held_out, recipe.train.seed, _accepted(target)),
            "the run's evaluation rows",
        )
    else:
        (rows, kind), origin = _shipped(target), "shipped sentences"
    settings = _settings(target, kind)
    size = sum(place.info.elements for place in weights.layout(target.base.folder).values())
    new_tokens = max(_FEWEST_NEW, min(_MOST_NEW, _READ // size)) if heads.writes(target.head) else 0
    limit = (target.base.max_positions or _LONGEST) - new_tokens
    objective = tasks.objective_of(target, kind, limit, "drop", settings)
    examples = _first(objective, objective.encode(rows), max(_TOKENS, _MULTIPLIED // size))
    if not examples:
        raise DataError(f"no row to compare on fits into {limit} tokens and holds a label; give others with --data.")
    return Probes(examples, objective, origin, new_tokens, missing)


def _first(objective: Objective, examples: Sequence[Example], budget: int) -> list[Example]:
    """Return the first examples that have something to predict, as many as have `budget` tokens or a few more."""
    found: list[Example] = []
    tokens = predictions = 0
    for example in examples:
        if len(found) == _ROWS or (tokens >= budget and predictions >= _PREDICTIONS):
            break
        if learned := objective.learned(example):
            found.append(example)
            tokens, predictions = tokens + len(example), predictions + learned
    return found


def _settings(target: Target, kind: FormatName) -> Any:
    """Return the settings of the objective to compare with: for text on an encoder-decoder, cut-out spans."""
    settings = tasks.settings_of(target)
    return default("span_corruption") if kind == "text" and settings.name == "seq2seq_lm" else settings


def _accepted(target: Target) -> tuple[FormatName, ...]:
    return objectives.FORMATS[tasks.settings_of(target).name]


def _shipped(target: Target) -> tuple[list[Row], FormatName]:
    """Return the shipped sentences as rows of the kind the target reads; what is learned of them does not matter."""
    head = target.head
    kind: FormatName = "text"
    label = head.labels[0] if head.labels else ""
    fields: list[dict[str, Any]] = [{"text": text} for text in SENTENCES]
    if head.task == "sequence_classification":
        kind = "labelled"
        learned: dict[Problem | None, dict[str, Any]] = {
            "regression": {"score": 0.0},
            "multi_label_classification": {"labels": [label]},
        }
        fields = [{"text": text, **learned.get(head.problem, {"label": label})} for text in SENTENCES]
    elif head.task == "token_classification":
        kind = "tagged"
        fields = [{"tokens": text.split(), "tags": [label] * len(text.split())} for text in SENTENCES]
    elif head.task == "question_answering":
        kind = "extractive"
        fields = [{"question": "What is it?", "context": text, "answers": []} for text in SENTENCES]
    elif head.task == "seq2seq_lm" and "source_target" in _accepted(target):
        kind = "source_target"
        fields = [{"source": text, "target": text} for text in SENTENCES]
    return [Row(values, "shipped", number) for number, values in enumerate(fields, start=1)], kind


def _own_recipe(target: Target) -> tuple[Recipe | None, tuple[str, ...]]:
    """Return the recipe a run was started with, where its rows are still there; else a note that they are not."""
    stored = read_local(target.folder).get("recipe")
    if stored is None:
        return None, ()
    recipe = check(json.loads(stored)["values"], "local.json")
    source = recipe.data.eval if isinstance(recipe.data.eval, str) else recipe.data.train
    if isinstance(source, str) and (source.startswith("recipe:") or Path(source).exists()):
        return recipe, ()
    named = source if isinstance(source, str) else "several sources"
    return None, (f"the rows of the run ({named}) are not at hand, so shipped sentences are compared; or give --data.",)


def _read(
    data: DataSettings, held_out: float | str | SourceSettings | None, seed: int, accepted: tuple[FormatName, ...]
) -> tuple[list[Row], FormatName]:
    """Return canonical rows and the name of their format.

    Args:
        data: Settings of the rows.
        held_out: The rows wanted: a source of their own, a share of the training rows, or None for all of these.
        seed: Seed of the split.
        accepted: Formats that the target's objective reads.
    """
    source = data.train if held_out is None or isinstance(held_out, float) else held_out
    rows = sources.read(source, data, seed=seed).rows
    format = formats.recognise(rows, data.columns, accepted)
    canonical, _ = formats.canonical(
        rows,
        format,
        data.broken,
        normalise=data.normalise,
        label_names=formats.label_names(data.label_names),
        cure="Nothing was merged. Mend the rows, or give others with --data.",
    )
    if isinstance(held_out, float):
        canonical = splitting.split(canonical, format, held_out, seed)[1]
    return canonical[: 4 * _ROWS], format.name
