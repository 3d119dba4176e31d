"""The tables of `lorakit evaluate`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from lorakit.cli.layouts import Block, end, lines, stacked
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
_LONG, _BRIEF = 24, 14
"""Columns that a name may take where there is room, and where there is little."""
_LENGTHS = (None, 48, _LONG, _BRIEF)
"""Characters of labels, from wide layouts to narrow ones; None: all."""
_UNDEFINED = "—"


def score_table(found: Evaluation) -> list[list[str]]:
    """Return a line for each measure: of the target, of the other, and their difference; where narrow one for each.

    Layouts from wide to narrow, as `screen.show_fitting` takes them.
    """
    compared = found.against is not None
    sides = [(side.name, side.scores) for side in (found.target, found.against) if side is not None]
    signs = [False for _ in sides] + [True] * compared
    sides += [("difference", found.differences)] * compared
    told = {
        _WORDS.get(name, (name, 1, 3))[0]: [
            (called, *_shown(name, scores.get(name), signed))
            for (called, scores), signed in zip(sides, signs, strict=True)
        ]
        for name in dict.fromkeys(name for _, scores in sides for name in scores)
    }
    table = _table("")
    for called, _ in sides:
        table.add_column(Text(_end(called)), justify="right")
        table.add_column("")
    for words, numbers in told.items():
        table.add_row(words, *(cell for _, *cells in numbers for cell in cells))
    by_side = [
        stacked(
            [(words, [(_end(called, most), *cells) for called, *cells in numbers]) for words, numbers in told.items()],
            ("left", "right", "left"),
        )
        for most in (_LONG, _BRIEF)
    ]
    return [lines(table), *by_side, stacked(list(_apart(told)), ("left",))]


def _apart(told: Mapping[str, Sequence[tuple[str, str, str]]]) -> Iterator[Block]:
    """Yield measures with names, numbers and intervals on lines of their own."""
    for words, numbers in told.items():
        yield words, ()
        for called, value, interval in numbers:
            yield f" {_end(called)}", [(cell,) for cell in (value, interval) if cell]


def has_intervals(found: Evaluation) -> bool:
    """Whether any number of the table of measures has an interval; of one row nothing is resampled."""
    sides = [found.target.scores, found.against.scores if found.against is not None else {}, found.differences]
    return any(score.low is not None for scores in sides for score in scores.values())


def class_table(found: Evaluation) -> list[list[str]]:
    """Return precision, recall and F1 of each class; of many classes those with the lowest F1. Empty without classes.

    Layouts from wide to narrow, as `screen.show_fitting` takes them.
    """
    ranked = found.target.table
    if not ranked:
        return []
    if len(ranked) > _MOST_CLASSES:
        occurring = [one for one in ranked if one.f1 is not None]
        ranked = sorted(occurring, key=lambda one: (one.f1 or 0.0, -one.support))[:_WORST]
    others = {one.label: one for one in found.against.table} if found.against is not None else {}
    few = f"{len(ranked)} worst of {len(found.target.table)}" if len(ranked) < len(found.target.table) else ""
    told = [(_line(one.label), _cells(one, others, found.against is not None)) for one in ranked]

    def headings(most: int) -> list[str]:
        compared = [] if found.against is None else [f"F1 % {_end(found.against.name, most)}"]
        return ["precision %", "recall %", "F1 %", *compared, "rows"]

    def beside(longest: int | None) -> list[str]:
        table = _table(few)
        for heading in headings(_LONG if longest is None else _BRIEF):
            table.add_column(Text(heading), justify="right")
        for label, cells in told:
            table.add_row(Text(_short(label, longest)), *cells)
        return lines(table)

    below: list[Block] = [(label, list(zip(headings(_LONG), cells, strict=True))) for label, cells in told]
    title: list[Block] = [(few, ())] if few else []
    return [*map(beside, _LENGTHS), stacked([*title, *below], ("left", "right"))]


def confusion_table(found: Evaluation) -> list[list[str]]:
    """Return what each label was taken for; of many labels the most frequent mistakes. Empty without a matrix.

    Layouts from wide to narrow, as `screen.show_fitting` takes them.
    """
    from lorakit.metrics.classes import worst_confusions

    matrix, labels = found.target.confusion, [_line(label) for label in found.labels]
    if not matrix:
        return []
    if len(labels) > _FEW_LABELS:
        worst = worst_confusions(matrix, labels, _WORST)
        return _pairs(worst) if worst else []
    counts = [[f"{count:,}" if count else "·" for count in line] for line in matrix]
    numbers = [str(number) for number in range(1, len(labels) + 1)]
    numbered = [f"{number} {_short(label, _BRIEF)}" for number, label in zip(numbers, labels, strict=True)]
    whole = _matrix([_short(label, _BRIEF) for label in labels], [_short(label, _BRIEF) for label in labels], counts)
    # Only what is there: a list of all pairs would bury it.
    there = [
        (labels[row], labels[column], count)
        for row, line in enumerate(matrix)
        for column, count in enumerate(line)
        if count
    ]
    return [whole, _matrix(numbered, numbers, counts), *_pairs(there)]


def _matrix(names: Sequence[str], headings: Sequence[str], counts: Sequence[Sequence[str]]) -> list[str]:
    table = _table("is \\ was taken for")
    for heading in headings:
        table.add_column(Text(heading), justify="right")
    for name, cells in zip(names, counts, strict=True):
        table.add_row(Text(name), *cells)
    return lines(table)


def _pairs(counted: Sequence[tuple[str, str, int]]) -> list[list[str]]:
    """Return layouts of how often a label was taken for another."""

    def beside(longest: int | None) -> list[str]:
        table = _table("is")
        table.add_column("was taken for")
        table.add_column("rows", justify="right")
        for right, said, count in counted:
            table.add_row(Text(_short(right, longest)), Text(_short(said, longest)), f"{count:,}")
        return lines(table)

    title: Block = ("is", [("was taken for", "rows")])
    below: list[Block] = [(right, [(_short(said, _LONG), f"{count:,}")]) for right, said, count in counted]
    return [*map(beside, _LENGTHS), stacked([title, *below], ("left", "right"))]


def _table(first: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    table.add_column(first)
    return table


def _shown(name: str, score: Score | None, signed: bool = False) -> tuple[str, str]:
    """Return ``87.3`` and ``(85.1–89.2)``; of a difference, with signs, ``+1.2`` and ``(-0.3 to +2.7)``."""
    if score is None or score.value is None:
        return _UNDEFINED, ""
    _, factor, digits = _WORDS.get(name, (name, 1, 3))
    form = f"{{:{'+' if signed else ''},.{digits}f}}"
    value = form.format(factor * score.value)
    if score.low is None or score.high is None:
        return value, ""
    low, high = form.format(factor * score.low), form.format(factor * score.high)
    # A dash before a sign would read as another number.
    return value, f"({low} to {high})" if signed or score.low < 0 else f"({low}–{high})"


def _cells(one: ClassScore, others: dict[str, ClassScore], compared: bool) -> list[str]:
    shares = [one.precision, one.recall, one.f1]
    if compared:
        other = others.get(one.label)
        shares.append(None if other is None else other.f1)
    return [*(_UNDEFINED if share is None else f"{100 * share:.1f}" for share in shares), f"{one.support:,}"]


def _line(text: str) -> str:
    """Return text that harms no terminal, on one line."""
    return safe(text).replace("\n", " ").replace("\t", " ")


def _end(name: str, most: int = _LONG) -> str:
    return end(_line(name), most)


def _short(label: str, most: int | None) -> str:
    return label if most is None or len(label) <= most else f"{label[: most - 1]}…"
