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
from lorakit.workflows.launching import from_each

_TOGETHER = 256
"""Rows encoded in one call."""
_LEAST = 32
"""Rows that are not joined to those before them: false neighbours are taken from documents of the same call."""


@dataclass(frozen=True)
class _Turn:
    """What one process has to hand over in a round."""

    read: int
    """Rows it has read so far, for all."""
    unread: DataError | None
    """What it could not read on for."""
    examples: list[Example]
    """Of the rows that it encoded."""
    counted: Counter[str]
    """What its objective counted in them."""
    refused: DataError | None
    """What they could not be encoded for."""


@dataclass
class Stream:
    """Reads, checks and encodes training rows; counts what it meets in the first epoch, as later ones meet it again.

    Of several processes each reads all rows, and none encodes what another does: in a round each takes a list of them,
    and all hand over what they made of theirs. So all yield the examples of one process, in its order.
    """

    recipe: Recipe
    objective: Any
    format: Format
    accelerator: Any = None
    """Of this process; None for a single one."""
    notes: list[str] = field(default_factory=list)
    """What the reading of files has to say."""
    rows: int = 0
    faults: list[str] = field(default_factory=list)
    remarks: Counter[str] = field(default_factory=Counter)
    encoded: Counter[str] = field(default_factory=Counter)
    """What the objectives of all processes counted."""

    def read(self, epoch: int) -> Iterator[Example]:
        """Yield the examples of one epoch; every process has to go on with it alike.

        Raises:
            DataError: A row cannot be used and `data.broken` or `data.too_long` is `error`: on all processes, wherever
                it was met. Or they read different rows.
        """
        data = self.recipe.data
        counted = epoch == 0
        if counted:
            self._begin()
        notes = self.notes if counted else []
        rows = sources.stream(data.train, data, seed=self.recipe.train.seed + epoch, notes=notes)
        for turn in self._turns(_parts(self._sound(rows, counted))):
            if counted:
                self.encoded.update(turn.counted)
            yield from turn.examples
            if turn.refused is not None:
                raise turn.refused

    def told(self) -> list[str]:
        """Return a sentence for everything that was met so far."""
        encoded = replace(self.objective, counted=self.encoded).notes
        return [*self.notes, *formats.told(self.remarks, self.faults, self.rows), *encoded]

    def _turns(self, parts: Iterator[list[Row]]) -> Iterator[_Turn]:
        """Yield what the processes made of `parts`, round after round, in the order of the rows."""
        here = self.accelerator
        rank, world = (0, 1) if here is None else (here.process_index, here.num_processes)
        objective = replace(self.objective, counted=Counter())
        first, more = 0, True
        while more:
            taken, unread = _taken(parts, world)
            more = len(taken) == world
            before, first = first + sum(map(len, taken[:rank])), first + sum(map(len, taken))
            mine = taken[rank] if rank < len(taken) else []
            turns = from_each(here, _Turn(first, unread, *_encoded(objective, mine, before)))
            stopped = next((turn.unread for turn in turns if turn.unread is not None), None)
            if any(turn.read != first for turn in turns):
                told = ", ".join(f"{turn.read:,}" for turn in turns)
                raise stopped or DataError(
                    f"the processes do not read the same rows of data.train: {told} of them so far. Put the files "
                    "where all machines see them, or the same ones on each."
                )
            yield from turns
            if stopped is not None:
                raise stopped

    def _begin(self) -> None:
        self.rows = 0
        for met in (self.notes, self.faults, self.remarks, self.encoded):
            met.clear()

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


def _taken(parts: Iterator[list[Row]], count: int) -> tuple[list[list[Row]], DataError | None]:
    """Return the next `count` of `parts`; where one cannot be read, those before it, and why."""
    taken: list[list[Row]] = []
    try:
        for part in islice(parts, count):
            taken.append(part)
    except DataError as error:
        return taken, error
    return taken, None


def _encoded(objective: Any, rows: list[Row], first: int) -> tuple[list[Example], Counter[str], DataError | None]:
    """Return the examples of `rows`, the first of which has the number `first`, what was counted, and what is wrong."""
    objective.counted.clear()
    try:
        examples = objective.encode(rows, first) if rows else []
    except DataError as error:
        return [], Counter(objective.counted), error
    return examples, Counter(objective.counted), None
