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
        while part := list(islice(rows, _TOGETHER)):
            yield from objective.encode(self._sound(part, counted), first)
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

    def _sound(self, part: list[Row], counted: bool) -> list[Row]:
        kept: list[Row] = []
        data = self.recipe.data
        names = formats.label_names(data.label_names)
        for row in part:
            try:
                canonical, said = formats.canonical_rows(row, self.format, normalise=data.normalise, label_names=names)
            except DataError as error:
                if self.recipe.data.broken == "error":
                    raise
                if counted:
                    self.faults.append(str(error))
                continue
            kept += canonical
            if counted:
                self.remarks.update(said)
        if counted:
            self.rows += len(part)
        return kept
