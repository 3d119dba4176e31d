"""The tables of `lorakit evaluate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from lorakit.cli.screen import safe

if TYPE_CHECKING:
    from lorakit.metrics.classes import ClassScore
    from lorakit.metrics.intervals import Score
    from lorakit.workflows.evaluating import Evaluation

_WORDS = {
    "perplexity": ("perplexity", 1, 2),
    "pseudo_perplexity": ("pseudo-perplexity (masks)", 1, 2),
    "bits_per_byte": ("bits per byte", 1, 3),
    "token_accuracy": ("next token right %", 100, 1),
    "mask_accuracy": ("masks right %", 100, 1),
    "nsp_accuracy": ("next sentences right %", 100, 1),
    "bleu": ("BLEU", 1, 1),
    "chrf": ("chrF", 1, 1),
    "rouge_1": ("ROUGE-1", 1, 1),
    "rouge_2": ("ROUGE-2", 1, 1),
    "rouge_l": ("ROUGE-L", 1, 1),
    "exact_match": ("exact match %", 100, 1),
    "accuracy": ("accuracy %", 100, 1),
    "macro_f1": ("macro-F1 %", 100, 1),
    "micro_f1": ("micro-F1 %", 100, 1),
    "mcc": ("Matthews correlation", 1, 3),
    "pearson": ("Pearson correlation", 1, 3),
    "spearman": ("Spearman correlation", 1, 3),
    "mean_squared_error": ("mean squared error", 1, 4),
    "entity_f1": ("entity F1 %", 100, 1),
    "entity_precision": ("entity precision %", 100, 1),
    "entity_recall": ("entity recall %", 100, 1),
    "tag_accuracy": ("tags right %", 100, 1),
    "f1": ("F1 %", 100, 1),
    "has_answer_exact_match": ("exact match, answerable %", 100, 1),
    "has_answer_f1": ("F1, answerable %", 100, 1),
    "no_answer_accuracy": ("unanswerable seen %", 100, 1),
}
"""Measure -> what it is called, what it is multiplied by, and digits behind the point."""

_MOST_CLASSES = 30
_FEW_LABELS = 12
"""Most labels that a whole matrix is shown of."""
_WORST = 10
_UNDEFINED = "—"


def score_table(found: Evaluation) -> Table:
    """Return a line for each measure: of the target, of the other, and their difference."""
    sides = [found.target, *([found.against] if found.against is not None else [])]
    table = _table("")
    for heading in [*(side.name for side in sides), *(["difference"] if found.against is not None else [])]:
        table.add_column(Text(_end(heading)), justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
    for name in dict.fromkeys(name for side in sides for name in side.scores):
        words = _WORDS.get(name, (name, 1, 3))[0]
        cells = [cell for side in sides for cell in _shown(name, side.scores.get(name))]
        if found.against is not None:
            cells += _shown(name, found.differences.get(name), signed=True)
        table.add_row(words, *cells)
    return table


def has_intervals(found: Evaluation) -> bool:
    """Whether any number of the table of measures has an interval; of one row nothing is resampled."""
    sides = [found.target.scores, found.against.scores if found.against is not None else {}, found.differences]
    return any(score.low is not None for scores in sides for score in scores.values())


def class_table(found: Evaluation) -> Table | None:
    """Return precision, recall and F1 of each class; of many classes those with the lowest F1. None without classes."""
    lines = found.target.table
    if not lines:
        return None
    if len(lines) > _MOST_CLASSES:
        occurring = [one for one in lines if one.f1 is not None]
        lines = sorted(occurring, key=lambda one: (one.f1 or 0.0, -one.support))[:_WORST]
    others = {one.label: one for one in found.against.table} if found.against is not None else {}
    few = f"{len(lines)} worst of {len(found.target.table)}" if len(lines) < len(found.target.table) else ""
    table = _table(few)
    headings = ["precision %", "recall %", "F1 %", "rows"]
    if found.against is not None:
        headings.insert(3, f"F1 % {_end(found.against.name)}")
    for heading in headings:
        table.add_column(Text(heading), justify="right")
    for one in lines:
        table.add_row(Text(safe(one.label)), *_cells(one, others, found.against is not None))
    return table


def confusion_table(found: Evaluation) -> Table | None:
    """Return what each label was taken for; of many labels the most frequent mistakes. None without a matrix."""
    from lorakit.metrics.classes import worst_confusions

    matrix, labels = found.target.confusion, found.labels
    if not matrix:
        return None
    if len(labels) > _FEW_LABELS:
        table = _table("is")
        table.add_column("was taken for")
        table.add_column("rows", justify="right")
        for right, said, count in worst_confusions(matrix, labels, _WORST):
            table.add_row(Text(safe(right)), Text(safe(said)), f"{count:,}")
        return table if table.row_count else None
    table = _table("is \\ was taken for")
    for label in labels:
        table.add_column(Text(_short(label)), justify="right")
    for label, line in zip(labels, matrix, strict=True):
        table.add_row(Text(_short(label)), *(f"{count:,}" if count else "·" for count in line))
    return table


def _table(first: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
    table.add_column(first, no_wrap=True)
    return table


def _shown(name: str, score: Score | None, signed: bool = False) -> list[str]:
    """Return ``87.3`` and ``(85.1–89.2)``; of a difference, with signs, ``+1.2`` and ``(-0.3 to +2.7)``."""
    if score is None or score.value is None:
        return [_UNDEFINED, ""]
    _, factor, digits = _WORDS.get(name, (name, 1, 3))
    form = f"{{:{'+' if signed else ''},.{digits}f}}"
    value = form.format(factor * score.value)
    if score.low is None or score.high is None:
        return [value, ""]
    low, high = form.format(factor * score.low), form.format(factor * score.high)
    # A dash before a sign would read as another number.
    return [value, f"({low} to {high})" if signed or score.low < 0 else f"({low}–{high})"]


def _cells(one: ClassScore, others: dict[str, ClassScore], compared: bool) -> list[str]:
    shares = [one.precision, one.recall, one.f1]
    if compared:
        other = others.get(one.label)
        shares.append(None if other is None else other.f1)
    return [*(_UNDEFINED if share is None else f"{100 * share:.1f}" for share in shares), f"{one.support:,}"]


def _end(name: str, most: int = 24) -> str:
    """Return the end of a path or a name, where paths differ."""
    shown = safe(name)
    return shown if len(shown) <= most else f"…{shown[1 - most :]}"


def _short(label: str, most: int = 14) -> str:
    shown = safe(label)
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"
