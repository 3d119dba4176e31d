"""How well labels or scores are predicted: accuracy, F1, Matthews correlation, tables, correlations.

Shape suffixes besides those of types.py: N ways of counting the rows, R rows, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lorakit.metrics.intervals import Array, Measure, mean, quotient


@dataclass(frozen=True, slots=True)
class ClassScore:
    """How well one class is found; shares in [0, 1], None where there is nothing to take a share of."""

    label: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int
    """Rows (or entities) that are of it."""

    def as_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self)


def single_label(true: Sequence[str], predicted: Sequence[str], labels: Sequence[str]) -> dict[str, Measure]:
    """Return accuracy, macro-F1 and Matthews correlation of one label a row.

    Macro-F1 is the mean over the classes that occur, as truth or as prediction. The Matthews correlation of several
    classes is Gorodkin's (2004, equation 8), 0 where either side is of one class alone.

    Args:
        true: The right label of each row.
        predicted: What was said.
        labels: All labels.
    """
    true_RC, predicted_RC = (_indicator([[label] for label in side], labels) for side in (true, predicted))
    counts = _counts(true_RC, predicted_RC)
    return {
        "accuracy": mean([one == other for one, other in zip(true, predicted, strict=True)]),
        "macro_f1": lambda weights_NR: _macro_f1(*counts(weights_NR)),
        "mcc": lambda weights_NR: _matthews(*counts(weights_NR), weights_NR.sum(axis=1)),
    }


def multi_label(
    true: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], labels: Sequence[str]
) -> dict[str, Measure]:
    """Return micro-F1, macro-F1 (over the classes that occur) and exact match of any number of labels a row."""
    counts = _counts(_indicator(true, labels), _indicator(predicted, labels))
    exact = [set(one) == set(other) for one, other in zip(true, predicted, strict=True)]

    def micro_f1(weights_NR: Array) -> Array:
        hits_NC, true_NC, predicted_NC = counts(weights_NR)
        return quotient(2 * hits_NC.sum(axis=1), true_NC.sum(axis=1) + predicted_NC.sum(axis=1))

    return {
        "micro_f1": micro_f1,
        "macro_f1": lambda weights_NR: _macro_f1(*counts(weights_NR)),
        "exact_match": mean(exact),
    }


def regression(true: Sequence[float], predicted: Sequence[float]) -> dict[str, Measure]:
    """Return Pearson's and Spearman's correlation (undefined for a constant) and the mean squared error."""
    true_R, predicted_R = np.asarray(true, dtype=float), np.asarray(predicted, dtype=float)

    def pearson(weights_NR: Array) -> Array:
        return _correlation(weights_NR, true_R, predicted_R)

    def spearman(weights_NR: Array) -> Array:
        return _correlation(weights_NR, _ranks(true_R, weights_NR), _ranks(predicted_R, weights_NR))

    return {"pearson": pearson, "spearman": spearman, "mean_squared_error": mean((true_R - predicted_R) ** 2)}


def table(true: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], labels: Sequence[str]) -> list[ClassScore]:
    """Return precision, recall and F1 of each class, in the order of `labels`, for any number of labels a row."""
    from sklearn.metrics import precision_recall_fscore_support

    true_RC, predicted_RC = (_indicator(side, labels).tocsr().astype(int) for side in (true, predicted))
    columns = precision_recall_fscore_support(true_RC, predicted_RC, average=None, zero_division=np.nan)
    return [
        ClassScore(label, _known(precision), _known(recall), _known(f1), int(support))
        for label, precision, recall, f1, support in zip(labels, *columns, strict=True)
    ]


def confusion(true: Sequence[str], predicted: Sequence[str], labels: Sequence[str]) -> list[list[int]]:
    """Return how often each label (row) was taken for each label (column), in the order of `labels`."""
    from sklearn.metrics import confusion_matrix

    numbers = {label: number for number, label in enumerate(labels)}
    sides = ([numbers[label] for label in side] for side in (true, predicted))
    matrix: list[list[int]] = confusion_matrix(*sides, labels=range(len(labels))).tolist()
    return matrix


def worst_confusions(matrix: Sequence[Sequence[int]], labels: Sequence[str], most: int) -> list[tuple[str, str, int]]:
    """Return the most frequent mistakes of a confusion matrix: the right label, what was said, how often."""
    mistakes = [
        (labels[row], labels[column], count)
        for row, line in enumerate(matrix)
        for column, count in enumerate(line)
        if count and row != column
    ]
    return sorted(mistakes, key=lambda mistake: -mistake[2])[:most]


def _known(share: float) -> float | None:
    return None if np.isnan(share) else float(share)


def _indicator(sides: Sequence[Sequence[str]], labels: Sequence[str]) -> Any:
    """Return a sparse array of ones where a row has a label, shape (R, C)."""
    from scipy.sparse import csr_array

    numbers = {label: number for number, label in enumerate(labels)}
    places = [(row, numbers[label]) for row, several in enumerate(sides) for label in set(several)]
    rows, columns = zip(*places, strict=True) if places else ((), ())
    return csr_array((np.ones(len(places)), (rows, columns)), shape=(len(sides), len(labels)))


def _counts(true_RC: Any, predicted_RC: Any) -> Callable[[Array], tuple[Array, Array, Array]]:
    """Return the function from weights (N, R) to hits, rows of each class and predictions of it, shape (N, C) each."""
    hits_RC = true_RC.multiply(predicted_RC).tocsr()
    return lambda weights_NR: (weights_NR @ hits_RC, weights_NR @ true_RC, weights_NR @ predicted_RC)


def _macro_f1(hits_NC: Array, true_NC: Array, predicted_NC: Array) -> Array:
    f1_NC = quotient(2 * hits_NC, true_NC + predicted_NC)
    occurs_NC = ~np.isnan(f1_NC)
    return quotient(np.where(occurs_NC, f1_NC, 0).sum(axis=1), occurs_NC.sum(axis=1))


def _matthews(hits_NC: Array, true_NC: Array, predicted_NC: Array, rows_N: Array) -> Array:
    above_N = hits_NC.sum(axis=1) * rows_N - (true_NC * predicted_NC).sum(axis=1)
    spread_N = (rows_N**2 - (true_NC**2).sum(axis=1)) * (rows_N**2 - (predicted_NC**2).sum(axis=1))
    return quotient(above_N, np.sqrt(spread_N), otherwise=0.0)


def _correlation(weights_NR: Array, one: Array, other: Array) -> Array:
    """Return the weighted correlation of two sides, shape (R,) or (N, R) each; NaN where one is constant."""
    rows_N1 = weights_NR.sum(axis=1, keepdims=True)
    sides = [np.broadcast_to(side, weights_NR.shape) for side in (one, other)]
    off_NR, other_off_NR = (side - (weights_NR * side).sum(axis=1, keepdims=True) / rows_N1 for side in sides)
    spreads = [np.sqrt((weights_NR * side * side).sum(axis=1)) for side in (off_NR, other_off_NR)]
    # Rounding leaves a little spread where there is none.
    sizes = [np.sqrt((weights_NR * side * side).sum(axis=1)) for side in sides]
    constant_N = np.logical_or(*(spread <= 1e-12 * size for spread, size in zip(spreads, sizes, strict=True)))
    below_N = np.where(constant_N, 0.0, spreads[0] * spreads[1])
    return quotient((weights_NR * off_NR * other_off_NR).sum(axis=1), below_N)


def _ranks(values_R: Array, weights_NR: Array) -> Array:
    """Return the rank of each value where row r stands `weights` times, ties at their mean rank, shape (N, R)."""
    _, group_R = np.unique(values_R, return_inverse=True)
    order = np.argsort(group_R, kind="stable")
    starts = np.flatnonzero(np.diff(group_R[order], prepend=-1))
    sizes_NG = np.add.reduceat(weights_NR[:, order], starts, axis=1)
    middle_NG = np.cumsum(sizes_NG, axis=1) - (sizes_NG - 1) / 2
    ranks_NR: Array = middle_NG[:, group_R]
    return ranks_NR
