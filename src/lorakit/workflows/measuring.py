"""How well a model answers rows: one set of measures an objective, from likelihoods, written texts or predictions.

Shape suffixes besides those of types.py: R rows, U units that are resampled together (rows of one source).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from lorakit.data.readers.faults import counted
from lorakit.metrics import classes, spans
from lorakit.metrics.classes import ClassScore
from lorakit.metrics.intervals import Array, Measure, quotient, ratio, summed
from lorakit.metrics.texts import texts
from lorakit.objectives.class_labels import names_in, number_in
from lorakit.objectives.seq2seq_lm import source_and_target
from lorakit.types import Batch, Example, Objective, Row
from lorakit.workflows.scoring import placed, scored, tokens_at_once

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from lorakit.adapters.bundle import Target

_CHUNK = 256
"""Rows predicted between two reports of progress."""

_LIKELIHOODS = {"tokens": "perplexity", "mlm": "pseudo_perplexity"}
_HITS = {"accuracy": "token_accuracy", "mlm_accuracy": "mask_accuracy", "nsp_accuracy": "nsp_accuracy"}
OF_TOKENS = frozenset({*_LIKELIHOODS.values(), "token_accuracy", "mask_accuracy"})
"""Measures a token, which say nothing between models that cut text into other tokens."""

Tell = Callable[[int, int], None]
"""Told how many rows of how many are done."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What one model's answers come to, before anything is resampled."""

    measures: dict[str, Measure]
    units: int
    """Of how many independent units the measures are: rows, or sources where several rows share one."""
    table: list[ClassScore] = field(default_factory=list)
    confusion: list[list[int]] = field(default_factory=list)
    """Rows of each label (line) by what was said (column), in the order of the labels."""
    signatures: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def measure(target: Target, objective: Objective, model: nn.Module, rows: Sequence[Row], tell: Tell) -> Measured:
    """Let a model answer rows and return how well it does.

    Args:
        target: What the model was loaded from.
        objective: Made for it.
        model: In eval mode, on any device.
        rows: Canonical rows, each of which the objective reads.
        tell: Told of progress.
    """
    match objective.name:
        case "sequence_classification":
            return _classified(objective, _predicted(objective, model, rows, tell), rows)
        case "token_classification":
            return _tagged(objective, _predicted(objective, model, rows, tell), rows)
        case "question_answering":
            said = [str(one["answer"]) for one in _predicted(objective, model, rows, tell)]
            right = [[str(answer["text"]) for answer in row.fields["answers"]] for row in rows]
            return Measured(spans.answers(said, right), len(rows))
        case "seq2seq_lm":
            return _written(target, objective, model, rows, tell)
        case _:
            measures = _likelihoods(target, objective, model, rows, np.arange(len(rows)), tell)
            return Measured(measures, len(rows))


def source_of(row: Row) -> str:
    """Return what a text-to-text model reads of a row; rows of the same source are references of one another."""
    pair = source_and_target(row.fields)
    return "" if pair is None else pair[0]


def _predicted(objective: Any, model: nn.Module, rows: Sequence[Row], tell: Tell) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for start in range(0, len(rows), _CHUNK):
        found += objective.predict(model, rows[start : start + _CHUNK], top=1)
        tell(len(found), len(rows))
    return found


def _classified(objective: Objective, predicted: Sequence[Mapping[str, Any]], rows: Sequence[Row]) -> Measured:
    labels, problem = objective.head.labels, objective.head.problem
    if problem == "regression":
        scores = [float(one["score"]) for one in predicted]
        return Measured(classes.regression([number_in(row) for row in rows], scores), len(rows))
    true = [names_in(row) for row in rows]
    if problem == "multi_label_classification":
        several = [list(one["labels"]) for one in predicted]
        table = classes.table(true, several, labels)
        return Measured(classes.multi_label(true, several, labels), len(rows), table)
    said = [str(one["label"]) for one in predicted]
    right = [names[0] for names in true]
    return Measured(
        classes.single_label(right, said, labels),
        len(rows),
        classes.table(true, [[label] for label in said], labels),
        classes.confusion(right, said, labels),
    )


def _tagged(objective: Objective, predicted: Sequence[Mapping[str, Any]], rows: Sequence[Row]) -> Measured:
    true = [list(row.fields["tags"]) for row in rows]
    said = [list(one["tags"]) for one in predicted]
    accuracy = {"tag_accuracy": spans.tag_accuracy(true, said)}
    if spans.has_entities(objective.head.labels):
        return Measured({**spans.entities(true, said), **accuracy}, len(rows), spans.entity_table(true, said))
    words, said_words = ([[tag] for tags in side for tag in tags] for side in (true, said))
    return Measured(accuracy, len(rows), classes.table(words, said_words, objective.head.labels))


def _written(target: Target, objective: Objective, model: nn.Module, rows: Sequence[Row], tell: Tell) -> Measured:
    """Measure likelihoods, and texts that are written once a source, against all that is right for that source."""
    from lorakit.generation.settings import DecodingSettings
    from lorakit.workflows.generating import Writer

    references: dict[str, list[str]] = {}
    for row in rows:
        references.setdefault(source_of(row), []).extend(_right_texts(row))
    numbers = {source: number for number, source in enumerate(references)}
    units_R = np.array([numbers[source_of(row)] for row in rows])
    measures = _likelihoods(target, objective, model, rows, units_R, lambda done, total: None)
    longest = max(len(ids) for ids in target.tokenizer([text for one in references.values() for text in one]).input_ids)
    # Twice the longest reference lets an answer be too long, and cuts off one that never ends.
    settings = DecodingSettings(max_new_tokens=2 * longest + 8)
    writer = Writer(target, cast("PreTrainedModel", model), composes=False)
    answers = {}
    for number, (completion, *_) in writer.each(
        list(references), settings, on_done=lambda done: tell(done, len(numbers))
    ):
        answers[number] = completion
    written = [answers[number].text for number in range(len(numbers))]
    unended = sum(completion.finish_reason in ("length", "context") for completion in answers.values())
    found = texts(written, list(references.values()))
    notes = [f"{unended:,} of {counted(len(written), 'answer')} cut off before an end"] if unended else []
    return Measured({**found.measures, **measures}, len(numbers), signatures=found.signatures, notes=notes)


def _likelihoods(
    target: Target, objective: Objective, model: nn.Module, rows: Sequence[Row], units_R: Array, tell: Tell
) -> dict[str, Measure]:
    """Return perplexity, accuracy of tokens and, of whole texts, bits per byte.

    Perplexity is exp(nats / tokens) over all learned tokens; bits per byte are nats / ln 2 over the UTF-8 bytes of the
    learned text, which a model with other tokens can be compared by.
    """
    losses, hits = _sums(objective, model, rows, tokens_at_once(target), tell)

    def of_units(values_R: Array) -> Array:
        return np.bincount(units_R, weights=values_R)

    measures: dict[str, Measure] = {}
    for term, name in _LIKELIHOODS.items():
        if term in losses:
            sums_US = np.stack([of_units(losses[term][column]) for column in (0, 1)], axis=1)
            measures[name] = summed(sums_US, lambda sums: np.exp(quotient(sums[:, 0], sums[:, 1])))
    if objective.name in ("causal_lm", "seq2seq_lm"):
        bytes_R = np.array([float(len(_learned_text(row, objective).encode())) for row in rows])
        measures["bits_per_byte"] = ratio(of_units(losses["tokens"][0] / math.log(2)), of_units(bytes_R))
    for tally, name in _HITS.items():
        if tally in hits:
            measures[name] = ratio(*map(of_units, hits[tally]))
    return measures


def _sums(
    objective: Objective, model: nn.Module, rows: Sequence[Row], budget: int, tell: Tell
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return loss and count of each term, and hits and count of each tally, a row: arrays of shape (2, R)."""
    losses: dict[str, Array] = defaultdict(lambda: np.zeros((2, len(rows))))
    hits: dict[str, Array] = defaultdict(lambda: np.zeros((2, len(rows))))
    examples, done = objective.encode(rows), 0
    device = next(model.parameters()).device
    for group, _, outputs in scored(model, objective, examples, budget):
        for example, single, own in _apart(objective, group, outputs):
            counts = objective.counts(single)
            for term, loss in objective.losses(own, placed(single, device)).items():
                losses[term][:, example.row] += (float(loss), counts[term])
            for name, tally in objective.tallies(own, placed(single, device)).items():
                hits[name][:, example.row] += tally
        done += len(group)
        tell(done, len(examples))
    return losses, hits


def _apart(
    objective: Objective, group: Sequence[Example], outputs: Mapping[str, Tensor]
) -> Iterator[tuple[Example, Batch, dict[str, Tensor]]]:
    """Part the scores of a batch by its examples; their names say if they are of labelled positions (L) or rows (B)."""
    begin = 0
    for number, example in enumerate(group):
        single = objective.collate([example], packed=False)
        of_labels = slice(begin, begin + len(single.targets["positions_L"]))
        begin = of_labels.stop
        of_row = slice(number, number + 1)
        yield (
            example,
            single,
            {name: scores[of_labels if "_L" in name else of_row] for name, scores in outputs.items()},
        )


def _learned_text(row: Row, objective: Objective | None = None) -> str:
    """Return the text of a row that is learned: the answer, with `train_on_prompt` the prompt too, or all of it."""
    fields = row.fields
    if "messages" in fields:
        learned = [one["content"] for one in fields["messages"] if one["role"] == "assistant" or _all(objective)]
        return "".join(learned)
    if "text" in fields:
        return str(fields["text"])
    if "prompt" in fields and _all(objective):
        return f"{fields['prompt']}{fields['completion']}"
    pair = source_and_target(fields)
    return "" if pair is None else pair[1]


def _right_texts(row: Row) -> list[str]:
    """Return every text that a row calls right: all answers to its question, of which the first alone is learned."""
    if "answers" in row.fields:
        return [str(answer["text"]) for answer in row.fields["answers"]]
    return [_learned_text(row)]


def _all(objective: Any) -> bool:
    return bool(getattr(getattr(objective, "settings", None), "train_on_prompt", False))
