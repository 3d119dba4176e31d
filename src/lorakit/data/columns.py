"""What the columns of a table mean."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from lorakit.data.fields import listed
from lorakit.errors import DataError, nearest
from lorakit.types import Format, FormatName, Row


@dataclass(frozen=True, slots=True)
class _Pattern:
    """Columns that are recognised together."""

    name: FormatName
    roles: Mapping[str, str]
    """Role -> column."""
    extra: Mapping[str, str] = field(default_factory=dict)
    """Role -> a column that may be missing and, where it is not empty, is read besides."""

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self.roles.values(), *self.extra.values())

    def __str__(self) -> str:
        return "+".join(self.roles.values()) + "".join(f"(+{column})" for column in self.extra.values())

    def asked(self) -> _Pattern:
        """Return the pattern of rows that wait for what is to be predicted."""
        return _Pattern(self.name, {role: name for role, name in self.roles.items() if role not in _ANSWERS})


_ANSWERS = ("completion", "target", "label", "labels", "score", "tags", "answers")
_COMPARED = (
    {"text": "text"},
    {"text": "text", "text_pair": "text_pair"},
    {"text": "sentence1", "text_pair": "sentence2"},
    {"text": "premise", "text_pair": "hypothesis"},
    {"text": "question1", "text_pair": "question2"},
)
_LABELS = (
    {"label": "label"},
    {"label": "gold_label"},
    {"label": "is_duplicate"},
    {"labels": "labels"},
    {"score": "score"},
)
_PATTERNS = (
    _Pattern("text", {"text": "text"}),
    _Pattern("prompt_completion", {"prompt": "prompt", "completion": "completion"}),
    _Pattern("prompt_completion", {"prompt": "instruction", "completion": "output"}, {"prompt": "input"}),
    _Pattern("prompt_completion", {"prompt": "question", "completion": "answer"}),
    _Pattern("chat", {"messages": "messages"}),
    _Pattern("chat", {"messages": "conversations"}),
    _Pattern("source_target", {"source": "source", "target": "target"}),
    *(_Pattern("labelled", {**texts, **label}) for texts, label in product(_COMPARED, _LABELS)),
    _Pattern("tagged", {"tokens": "tokens", "tags": "tags"}),
    _Pattern("tagged", {"tokens": "tokens", "tags": "ner_tags"}),
    _Pattern(
        "extractive",
        {"question": "question", "context": "context", "answers": "answers"},
        {"answers": "is_impossible"},
    ),
)
_LABELLED = (
    "text(+text_pair), sentence1+sentence2, premise+hypothesis or question1+question2 with label, gold_label, "
    "is_duplicate, labels (several a row) or score (a number)"
)
_CURES: dict[FormatName, tuple[str, ...]] = {
    "text": ("text",),
    "prompt_completion": ("prompt", "completion"),
    "chat": ("messages",),
    "source_target": ("source", "target"),
    "labelled": ("text", "label"),
    "tagged": ("tokens", "tags"),
    "extractive": ("question", "context", "answers"),
}
"""Format -> the columns that an example of data.columns names."""

KNOWN_COLUMNS = frozenset(column for pattern in _PATTERNS for column in pattern.columns)
"""Column names that are recognised by themselves."""


def recognise(
    rows: Sequence[Row],
    columns: Mapping[str, str],
    accepted: Collection[FormatName] | None = None,
    answered: bool = True,
) -> Format:
    """Find out what the columns mean.

    docs/formats.md lists what is recognised by itself. Of two meanings that fit, the one that reads more of the columns
    is taken: ``text``+``label`` rather than ``text``.

    Args:
        rows: All rows of the table, or the first ones of a stream.
        columns: Where the file's names differ: one of the known names -> the file's column, ``outer.inner`` for a value
            inside an object. Naming one also chooses between patterns that fit at once.
        accepted: The formats that may be meant; left out: all.
        answered: Whether rows hold what is to be learned; otherwise only what it is predicted from is looked for.

    Raises:
        DataError: No pattern fits, several do, or a column named in `columns` is not there.
    """
    if not rows:
        raise DataError("there are no rows: nothing can be learned from an empty table.")
    found = tuple(dict.fromkeys(column for row in rows for column in row.fields))
    _check_named(columns, found)
    # A column that got another name is no longer found under its own.
    names = {column: column for column in found if column not in columns.values()} | dict(columns)
    fitting = _fitting(names, columns, answered)
    allowed = [pattern for pattern in fitting if accepted is None or pattern.name in accepted]
    best = _reading_most(allowed)
    if len(best) != 1:
        raise _several(best, rows) if best else _none(found, columns, _reading_most(fitting), accepted)
    (pattern,) = best
    meaning: dict[str, tuple[str, ...]] = {role: (names[column],) for role, column in pattern.roles.items()}
    for role, column in pattern.extra.items():
        if column in names:
            meaning[role] = (*meaning[role], names[column])
    used = {column for group in meaning.values() for column in group}
    used |= {column.partition(".")[0] for column in used - set(found)}
    return Format(pattern.name, meaning, tuple(column for column in found if column not in used))


def _fitting(names: Mapping[str, str], columns: Mapping[str, str], answered: bool) -> list[_Pattern]:
    patterns = [pattern if answered else pattern.asked() for pattern in _PATTERNS]
    fitting = [
        pattern
        for pattern in patterns
        if all(column in names for column in pattern.roles.values()) and set(columns) <= set(pattern.columns)
    ]
    return list({(pattern.name, *pattern.columns): pattern for pattern in fitting}.values())


def _reading_most(patterns: Sequence[_Pattern]) -> list[_Pattern]:
    """Leave out each pattern that reads only some of the columns of another one."""
    read = [set(pattern.roles.values()) for pattern in patterns]
    return [pattern for pattern, ours in zip(patterns, read, strict=True) if not any(ours < theirs for theirs in read)]


def _check_named(columns: Mapping[str, str], found: Collection[str]) -> None:
    for role, column in columns.items():
        if role not in KNOWN_COLUMNS:
            raise DataError(
                f"data.columns.{role}: no such role. {nearest(role, KNOWN_COLUMNS)} "
                f"Roles are {', '.join(sorted(KNOWN_COLUMNS))}.".replace("  ", " ")
            )
        if column not in found and column.partition(".")[0] not in found:
            hint = nearest(column, found)
            raise DataError(
                f"data.columns.{role} names the column {column!r}, which the rows do not have. "
                f"{hint + ' ' if hint else ''}They have {listed(found)}."
            )


def _none(
    found: Iterable[str],
    columns: Mapping[str, str],
    fitting: Sequence[_Pattern],
    accepted: Collection[FormatName] | None,
) -> DataError:
    named = ", ".join(f"{role}: {column}" for role, column in columns.items())
    said = f" with data.columns {{{named}}}" if named else ""
    patterns = [pattern for pattern in _PATTERNS if accepted is None or pattern.name in accepted]
    known = [str(pattern) for pattern in patterns if pattern.name != "labelled"]
    known += [_LABELLED] if any(pattern.name == "labelled" for pattern in patterns) else []
    cures = " or ".join(
        " ".join(f"--set data.columns.{column}=NAME" for column in _CURES[name])
        for name in list(dict.fromkeys(pattern.name for pattern in patterns))[:3]
    )
    if fitting:
        meant = " or ".join(dict.fromkeys(pattern.name for pattern in fitting))
        problem = f"mean {meant} rows, which this objective does not learn. It reads {', '.join(known)}"
    else:
        problem = f"have no meaning that lorakit knows. It recognises {', '.join(known)}"
    return DataError(
        f"the columns {listed(found)}{said} {problem}. Say which column is which, for example {cures}. "
        "(If these are not names but the first row, say so with --set data.header=false: columns are then 1, 2, 3, …)"
    )


def _several(fitting: Sequence[_Pattern], rows: Sequence[Row]) -> DataError:
    cures = " or ".join(
        " ".join(f"--set data.columns.{column}={column}" for column in pattern.roles.values()) for pattern in fitting
    )
    message = f"the columns fit more than one meaning: {', '.join(map(str, fitting))}. Choose one: {cures}."
    first = rows[0]
    other = next((row for row in rows if set(row.fields) != set(first.fields)), None)
    if other is not None:
        message += (
            f" (Not all rows have the same columns: {first.where} has {listed(first.fields)}, "
            f"{other.where} has {listed(other.fields)}. Are these two tables?)"
        )
    return DataError(message)
