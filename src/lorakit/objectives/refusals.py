"""What is said of rows that an objective cannot use."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from lorakit.errors import DataError

TRUNCATE_OR_DROP = "say what to do with such rows: --set data.too_long=truncate (cut them at their end) or drop"
"""What can be done where the end of a text may go."""


def refuse(faults: Sequence[str], problem: str, cure: str) -> None:
    """Raise a DataError that names the first five of `faults`, if there are any.

    Args:
        faults: A row each.
        problem: What is the matter with them: ``are longer than max_length 64``.
        cure: What can be done.
    """
    if faults:
        more = f" and {len(faults) - 5:,} more" if len(faults) > 5 else ""
        raise DataError(f"{problem}: {'; '.join(faults[:5])}{more}. {cure}")


def refuse_longer(faults: Sequence[str], max_length: int, positions: int | None, *cures: str, beside: str = "") -> None:
    """Raise a DataError that names the first rows that are longer than `max_length`, if there are any.

    Args:
        faults: A row each.
        max_length: Most tokens of an example.
        positions: Most that the model reads; None where nothing bounds it.
        *cures: What can be done besides raising `max_length`.
        beside: What else is to be known of that bound.
    """
    count = "1 row is" if len(faults) == 1 else f"{len(faults):,} rows are"
    refuse(faults, f"{count} longer than max_length {max_length:,}{beside}", cured(max_length, positions, *cures))


def nothing_apart(found: str, noun: str, held: Collection[str]) -> DataError:
    """Return the error for rows to learn from that do not have two different labels or tags.

    Args:
        found: What they have.
        noun: ``label`` or ``tag``.
        held: Names that evaluation rows alone have, in order.
    """
    if not held:
        return DataError(f"there is nothing to tell apart: {found}. Give rows of at least two {noun}s.")
    listed = ", ".join(map(repr, list(held)[:5])) + (f" and {len(held) - 5:,} more" if len(held) > 5 else "")
    return DataError(
        f"there is nothing to tell apart: {found}, and evaluation rows alone have {listed}. Give more rows of each "
        f"{noun}, or rows to evaluate on in a file of their own: --set data.eval=FILE."
    )


def cured(max_length: int, positions: int | None, *cures: str) -> str:
    """Return what can be done about rows that are too long; `max_length` can be raised up to the model's positions."""
    if positions is not None and max_length >= positions:
        return f"The model reads no more than {positions:,} tokens: {_either(cures)}."
    return f"Raise {_either(('data.max_length', *cures))}."


def _either(ways: Sequence[str]) -> str:
    return ", or ".join(filter(None, [", ".join(ways[:-1]), ways[-1]]))
