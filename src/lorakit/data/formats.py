"""What the columns of a table mean, and rows brought to the names that objectives read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lorakit.data.chats import canonical_chat
from lorakit.data.readers.faults import counted
from lorakit.errors import DataError, nearest
from lorakit.types import Format, FormatName, Row


@dataclass(frozen=True, slots=True)
class _Pattern:
    """Columns that are recognised together."""

    name: FormatName
    roles: Mapping[str, str]
    """Role -> column."""
    extra: Mapping[str, str]
    """Role -> a column that may be missing and, where it is not empty, follows on a line of its own."""

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self.roles.values(), *self.extra.values())

    def __str__(self) -> str:
        return "+".join(self.roles.values()) + "".join(f"(+{column})" for column in self.extra.values())


_PATTERNS = (
    _Pattern("text", {"text": "text"}, {}),
    _Pattern("prompt_completion", {"prompt": "prompt", "completion": "completion"}, {}),
    _Pattern("prompt_completion", {"prompt": "instruction", "completion": "output"}, {"prompt": "input"}),
    _Pattern("prompt_completion", {"prompt": "question", "completion": "answer"}, {}),
    _Pattern("chat", {"messages": "messages"}, {}),
    _Pattern("chat", {"messages": "conversations"}, {}),
)
KNOWN_COLUMNS = frozenset(column for pattern in _PATTERNS for column in pattern.columns)
"""Column names that are recognised by themselves."""


def recognise(rows: Sequence[Row], columns: Mapping[str, str]) -> Format:
    """Find out what the columns mean.

    Recognised by themselves are ``text``; ``prompt``+``completion``; ``instruction``(+``input``)+``output``;
    ``question``+``answer``; ``messages``; ``conversations``.

    Args:
        rows: All rows of the table, or the first ones of a stream.
        columns: Where the file's names differ: one of the names above -> the file's column. Naming one also chooses
            between patterns that fit at once.

    Raises:
        DataError: No pattern fits, several do, or a column named in `columns` is not there.
    """
    if not rows:
        raise DataError("there are no rows: nothing can be learned from an empty table.")
    found = tuple(dict.fromkeys(column for row in rows for column in row.fields))
    _check_named(columns, found)
    # A column that got another name is no longer found under its own.
    names = {column: column for column in found if column not in columns.values()} | dict(columns)
    fitting = [
        pattern
        for pattern in _PATTERNS
        if all(column in names for column in pattern.roles.values()) and set(columns) <= set(pattern.columns)
    ]
    if len(fitting) != 1:
        raise _several(fitting, rows) if fitting else _none(found, columns)
    (pattern,) = fitting
    meaning: dict[str, tuple[str, ...]] = {role: (names[column],) for role, column in pattern.roles.items()}
    for role, column in pattern.extra.items():
        if column in names:
            meaning[role] = (*meaning[role], names[column])
    used = {column for group in meaning.values() for column in group}
    return Format(pattern.name, meaning, tuple(column for column in found if column not in used))


def canonical(
    rows: Sequence[Row], format: Format, broken: Literal["error", "skip"] = "error"
) -> tuple[list[Row], list[str]]:
    """Bring rows to ``text``, ``prompt`` and ``completion``, or ``messages`` (a list of ``role`` and ``content``).

    The words themselves are not changed. ``instruction`` and ``input`` become one prompt with a newline between; a last
    turn of a chat that is not the assistant's is left out, as nothing after it is learned, and counted.

    Args:
        rows: As they were read.
        format: What `recognise` found.
        broken: Whether a row that lacks what it needs stops everything, or is skipped and counted.

    Returns:
        The rows, and a sentence for everything the user should know.

    Raises:
        DataError: Rows lack a column; hold null, a number or nothing but white space where text is due; are chats that
            cannot be read. Names the first five and the count. Or no row is left.
    """
    kept: list[Row] = []
    faults: list[str] = []
    remarks: Counter[str] = Counter()
    for row in rows:
        try:
            canonical, said = canonical_row(row, format)
        except DataError as error:
            faults.append(str(error))
            continue
        kept.append(canonical)
        remarks.update(said)
    if faults and (broken == "error" or not kept):
        raise _unusable(faults, len(rows))
    return kept, told(remarks, faults, len(rows))


def canonical_row(row: Row, format: Format) -> tuple[Row, list[str]]:
    """Bring one row to the names that objectives read, as `canonical` does; also return remarks to be counted.

    Raises:
        DataError: It cannot be used; says where it stands.
    """
    convert: Callable[[Row, Format], tuple[dict[str, Any], list[str]]] = (
        canonical_chat if format.name == "chat" else _canonical_text
    )
    try:
        fields, said = convert(row, format)
    except DataError as error:
        raise DataError(f"{row.where}: {error}") from error
    return Row(fields, row.source, row.line), said


def told(remarks: Mapping[str, int], faults: Sequence[str], total: int) -> list[str]:
    """Return a sentence for each remark and one for all rows that were skipped, `total` being all rows read."""
    notes = [f"{counted(count, 'row')}: {remark}." for remark, count in remarks.items()]
    if faults:
        notes.append(f"{len(faults):,} of {counted(total, 'row')} skipped: {'; '.join(_first(faults))}.")
    return notes


def _canonical_text(row: Row, format: Format) -> tuple[dict[str, Any], list[str]]:
    fields = {}
    for role, (column, *extra) in format.columns.items():
        words = text_of(row.fields, column)
        for optional in extra:
            more = row.fields.get(optional)
            if more is not None and not isinstance(more, str):
                raise DataError(not_text(optional, more))
            words += f"\n{more}" if more and more.strip() else ""
        fields[role] = words
    return fields, []


def text_of(fields: Mapping[str, Any], column: str) -> str:
    """Return the text of a column that must hold some.

    Raises:
        DataError: It is missing, null, no text, or nothing but white space.
    """
    if column not in fields:
        raise DataError(f"has no {column!r} (it has {_listed(fields) or 'nothing'})")
    value = fields[column]
    if not isinstance(value, str):
        raise DataError(not_text(column, value))
    if not value.strip():
        raise DataError(f"{column!r} is {'only white space' if value else 'empty'}")
    return value


def not_text(column: str, value: object) -> str:
    """Return what is wrong with a value that is no text."""
    if value is None:
        return f"{column!r} is null"
    if isinstance(value, (bool, int, float)):
        literal = str(value).lower() if isinstance(value, bool) else str(value)[:30]
        return f'{column!r} is {literal}, which is not text; in quotes it is: "{literal}"'
    kinds: dict[type, str] = {list: "a list", dict: "an object"}
    return f"{column!r} is {kinds.get(type(value), f'a {type(value).__name__}')}, not text"


def _check_named(columns: Mapping[str, str], found: Iterable[str]) -> None:
    for role, column in columns.items():
        if role not in KNOWN_COLUMNS:
            raise DataError(
                f"data.columns.{role}: no such role. {nearest(role, KNOWN_COLUMNS)} "
                f"Roles are {', '.join(sorted(KNOWN_COLUMNS))}.".replace("  ", " ")
            )
        if column not in found:
            hint = nearest(column, found)
            raise DataError(
                f"data.columns.{role} names the column {column!r}, which the rows do not have. "
                f"{hint + ' ' if hint else ''}They have {_listed(found)}."
            )


def _none(found: Iterable[str], columns: Mapping[str, str]) -> DataError:
    named = ", ".join(f"{role}: {column}" for role, column in columns.items())
    said = f" with data.columns {{{named}}}" if named else ""
    return DataError(
        f"the columns {_listed(found)}{said} have no meaning that lorakit knows. It "
        f"recognises {', '.join(map(str, _PATTERNS))}. Say which column is which, for example "
        "--set data.columns.prompt=NAME --set data.columns.completion=NAME, or --set data.columns.text=NAME. "
        "(If these are not names but the first row, put a line of names above it.)"
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
            f" (Not all rows have the same columns: {first.where} has {_listed(first.fields)}, "
            f"{other.where} has {_listed(other.fields)}. Are these two tables?)"
        )
    return DataError(message)


def _unusable(faults: Sequence[str], total: int) -> DataError:
    listed = "\n".join(f"  {fault}" for fault in _first(faults))
    verb = "cannot be used" if len(faults) < total else "cannot be used, which is all of them"
    return DataError(
        f"{len(faults):,} of {counted(total, 'row')} {verb}:\n{listed}\nNothing was trained or written. Mend the rows, "
        "or skip and count them with --set data.broken=skip."
    )


def _first(faults: Sequence[str], shown: int = 5) -> list[str]:
    return [*faults[:shown], *([f"and {len(faults) - shown:,} more"] if len(faults) > shown else [])]


def _listed(columns: Iterable[str]) -> str:
    names = list(columns)
    cut = [column if len(column) <= 30 else column[:29] + "…" for column in names[:12]]
    return ", ".join(map(repr, cut)) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
