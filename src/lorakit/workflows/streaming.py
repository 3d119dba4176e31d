"""Training rows that are read while training, and the account of those that were skipped, cut or left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from lorakit.data import formats, sources
from lorakit.errors import DataError
from lorakit.recipe import Recipe
from lorakit.types import Example, Format, Row

_TOGETHER = 256
"""Rows encoded in one call."""
_LEAST = 32
"""Rows that are not joined to those before them: false neighbours are taken from documents of the same call."""


@dataclass
class Stream:
    """Reads, checks and encodes training rows; counts what it meets in the first epoch, as later ones meet it again."""

    recipe: Recipe
    objective: Any
    format: Format
    notes: list[str] = field(default_factory=list)
    """What the reading of files has to say."""
    rows: int = 0
    faults: list[str] = field(default_factory=list)
    remarks: Counter[str] = field(default_factory=Counter)
    _counting: Any = None
    """The objective of the first epoch, with counts of its own."""

    def read(self, epoch: int) -> Iterator[Example]:
        """Yield the examples of one epoch.

        Raises:
            DataError: A row cannot be used and `data.broken` or `data.too_long` is `error`.
        """
        data = self.recipe.data
        counted = epoch == 0
        self._begin(counted)
        objective = self._counting if counted else replace(self.objective, counted=Counter())
        notes = self.notes if counted else []
        rows = sources.stream(data.train, data, seed=self.recipe.train.seed + epoch, notes=notes)
        first = 0
        for part in _parts(self._sound(rows, counted)):
            yield from objective.encode(part, first)
            first += len(part)

    def told(self) -> list[str]:
        """Return a sentence for everything that was met so far."""
        encoded = self._counting.notes if self._counting is not None else []
        return [*self.notes, *formats.told(self.remarks, self.faults, self.rows), *encoded]

    def _begin(self, counted: bool) -> None:
        if counted:
            self._counting = replace(self.objective, counted=Counter())
            self.notes.clear()
            self.rows = 0
            self.faults.clear()
            self.remarks.clear()

    def _sound(self, rows: Iterator[Row], counted: bool) -> Iterator[Row]:
        """Yield canonical rows; those that cannot be used raise or are skipped, as the recipe says."""
        data = self.recipe.data
        names = formats.label_names(data.label_names)
        for row in rows:
            self.rows += counted
            try:
                canonical, said = formats.canonical_rows(row, self.format, normalise=data.normalise, label_names=names)
            except DataError as error:
                if data.broken == "error":
                    raise
                if counted:
                    self.faults.append(str(error))
                continue
            if counted:
                self.remarks.update(said)
            yield from canonical


def _parts(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """Yield all rows in lists of `_TOGETHER`, the last one of `_LEAST` to as many more."""
    part = list(islice(rows, _TOGETHER))
    while len(ahead := list(islice(rows, _LEAST))) == _LEAST:
        yield part
        part = ahead + list(islice(rows, _TOGETHER - _LEAST))
    if part:
        yield part + ahead
