"""What the labels of rows are called, in which order, and how much each weighs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from lorakit.errors import DataError, nearest
from lorakit.objectives.refusals import nothing_apart
from lorakit.objectives.settings import SequenceClassificationSettings
from lorakit.types import Problem, Row

PROBLEMS: dict[str, Problem] = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}
"""Name in a recipe -> name in config.json."""

_BY_ROLE = {"label": "single_label", "labels": "multi_label", "score": "regression"}

SCORE = "score"
"""What the one output of a regression is called."""


def in_order(names: set[str]) -> tuple[str, ...]:
    """Return names sorted; as numbers where all are integers, so that 10 comes after 9."""
    try:
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    except ValueError:
        return tuple(sorted(names))


def names_in(row: Row) -> list[str]:
    """Return the names of a row's labels: one from ``label``, any number from ``labels``.

    Raises:
        DataError: The row has neither.
    """
    if row.fields.get("labels") is not None:
        return [str(name) for name in row.fields["labels"]]
    if row.fields.get("label") is not None:
        return [str(row.fields["label"])]
    raise DataError(f"{row.where}: there is no label. Give the column data.columns.label names, or leave the row out.")


def number_in(row: Row) -> float:
    """Return a row's score, from ``score`` or ``label``.

    Raises:
        DataError: There is none, or it is no finite number.
    """
    role = "score" if row.fields.get("score") is not None else "label"
    given = row.fields.get(role)
    try:
        number = float(given)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(
            f"{row.where}: the {role} is {given!r}, but a regression learns finite numbers. Mend or remove the row, or "
            f"learn names: --set objective.problem=single_label."
        )
    return number


def numbers_of(row: Row, numbers: dict[str, int]) -> list[int]:
    """Return the numbers of a row's labels.

    Args:
        row: With labels.
        numbers: Number of each label by its name.

    Raises:
        DataError: A label that the training does not know.
    """
    role = "labels" if row.fields.get("labels") is not None else "label"
    for name in names_in(row):
        if name not in numbers:
            hint = nearest(name, numbers)
            raise DataError(
                f"{row.where}: {role} is {name!r}, which is none of the {len(numbers):,} labels to be learned"
                f"{f'. {hint}' if hint else f' ({_listed(tuple(numbers))}).'} Mend the row, or name all labels in the "
                f"recipe: objective.labels."
            )
    return [numbers[name] for name in names_in(row)]


def problem_of(rows: Sequence[Row], settings: SequenceClassificationSettings) -> Problem:
    """Return how scores become labels: as the recipe says, otherwise by the column that the rows have.

    Raises:
        DataError: Rows have no labels, or labels in different columns.
    """
    if settings.problem is not None:
        return PROBLEMS[settings.problem]
    roles = [role for role in _BY_ROLE if any(row.fields.get(role) is not None for row in rows)]
    if len(roles) != 1:
        found = " and ".join(roles) or "none of them"
        raise DataError(
            f"a classification learns label (one name), labels (a list of names) or score (a number); the rows have "
            f"{found}. Name the column: data.columns."
        )
    return PROBLEMS[_BY_ROLE[roles[0]]]


def labels_of(
    rows: Sequence[Row], settings: SequenceClassificationSettings, held: Sequence[Row] = ()
) -> tuple[str, ...]:
    """Return the names of the outputs in their order: the recipe's, otherwise those of the training rows, sorted.

    Args:
        rows: Training rows.
        settings: As in the recipe.
        held: Evaluation rows, for the message.

    Raises:
        DataError: There are not two labels to tell apart.
    """
    problem = problem_of(rows, settings)
    if problem == "regression":
        return (SCORE,)
    labels = tuple(settings.labels or in_order({name for row in rows for name in names_in(row)}))
    twice = [name for name, count in Counter(labels).items() if count > 1]
    if twice:
        raise DataError(f"objective.labels names {twice[0]!r} twice; name each label once.")
    if not labels or (len(labels) == 1 and problem == "single_label_classification"):
        count = "the one training row has" if len(rows) == 1 else f"all {len(rows):,} training rows have"
        found = f"{count} the label {labels[0]!r}" if labels else "no training row has a label"
        raise nothing_apart(found, "label", in_order({name for row in held for name in names_in(row)} - {*labels}))
    return labels


def weights_of(
    rows: Sequence[Row], labels: Sequence[str], settings: SequenceClassificationSettings
) -> dict[str, float] | None:
    """Return the weight of each label in the loss; None where all weigh alike.

    ``balanced`` is N / (C n): N labels of the rows in all, C names, n times this one (King and Zeng 2001, section 3.1).

    Raises:
        DataError: Weights of names that are no labels, or a balance with a label that no training row has.
    """
    given = settings.class_weights
    if given is None:
        return None
    if problem_of(rows, settings) == "regression":
        raise DataError("a regression has no classes to weigh; leave out objective.class_weights.")
    if given != "balanced":
        _check_weights(given, labels)
        return {label: given.get(label, 1.0) for label in labels}
    counts = Counter(name for row in rows for name in names_in(row))
    missing = [label for label in labels if not counts[label]]
    if missing:
        raise DataError(
            f"objective.class_weights is balanced, but no training row has the label {missing[0]!r}. Give weights by "
            f"name, or leave the label out of objective.labels."
        )
    total = sum(counts[label] for label in labels)
    return {label: total / (len(labels) * counts[label]) for label in labels}


def paired(rows: Sequence[Row]) -> bool:
    """Return whether rows hold two texts to be compared."""
    return any(row.fields.get("text_pair") is not None for row in rows)


def resolved(
    settings: SequenceClassificationSettings, rows: Sequence[Row], held: Sequence[Row] = ()
) -> SequenceClassificationSettings:
    """Return the settings with everything filled in that the training rows decide: labels, problem, weights, pairs.

    Args:
        settings: As in the recipe.
        rows: Canonical training rows.
        held: Canonical evaluation rows, for messages.

    Raises:
        DataError: The rows decide nothing, or contradict the recipe.
    """
    problem = problem_of(rows, settings)
    labels = labels_of(rows, settings, held)
    named: dict[str, Any] = {
        "labels": list(labels),
        "problem": next(name for name, meant in PROBLEMS.items() if meant == problem),
        "class_weights": weights_of(rows, labels, settings),
        "pairs": paired(rows) if settings.pairs is None else settings.pairs,
    }
    return settings.model_copy(update=named)


def _check_weights(given: dict[str, float], labels: Sequence[str]) -> None:
    for name, weight in given.items():
        if name not in labels:
            raise DataError(
                f"objective.class_weights names {name!r}, which is no label. {nearest(name, labels)} Labels are "
                f"{_listed(labels)}."
            )
        if weight <= 0:
            raise DataError(f"objective.class_weights gives {name!r} the weight {weight:g}; weights are above 0.")


def _listed(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - 8:,} more" if len(labels) > 8 else ""
    return ", ".join(repr(label) for label in labels[:8]) + more
