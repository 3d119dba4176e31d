"""What a user can put right, and how it is said: where, what was given, what is accepted, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


class LorakitError(Exception):
    """Something the user can put right. The command line prints it without a traceback and leaves with 1."""

    exit_code: int = 1


class DataError(LorakitError):
    """The rows cannot be read, or do not mean what the objective needs."""


class CheckpointError(LorakitError):
    """A model, adapter or run folder is missing, damaged or does not fit."""


class TrainingError(LorakitError):
    """Training cannot go on: nothing trains, the loss is not finite, the state on disk does not fit."""


class Interrupted(LorakitError):
    """A signal asked the program to leave, and what was done so far has been saved.

    `exit_code` is 128 + the signal's number: 130 SIGINT, 143 SIGTERM, 129 SIGHUP.
    """

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault in a recipe."""

    where: str
    """Dotted path of the field, as typed in the YAML: ``method.rank``."""
    problem: str
    """What is wrong: what was given, and what would be accepted."""
    line: int | None = None
    """Line of the YAML file, from 1; None for a fault of ``--set`` or of a missing key."""
    origin: str = ""
    """Where the value came from when not from a line of the file: ``--set``, ``--lr``."""


class RecipeError(LorakitError):
    """Every fault found in one recipe, so that it is edited once."""

    def __init__(self, source: str, faults: Sequence[Fault]) -> None:
        self.source = source
        self.faults = tuple(sorted(faults, key=lambda fault: (fault.line is None, fault.line or 0)))
        width = max(len(fault.where) for fault in self.faults)
        places = [f"line {fault.line}" if fault.line is not None else fault.origin for fault in self.faults]
        margin = max(len(place) for place in places)
        listed = "\n".join(
            f"  {place:<{margin}}  {fault.where:<{width}}  {fault.problem}".rstrip()
            for place, fault in zip(places, self.faults, strict=True)
        )
        super().__init__(f"{source} has {len(self.faults)} fault{'s' * (len(self.faults) > 1)}:\n{listed}")


def nearest(word: str, choices: Iterable[str]) -> str:
    """Return ``Did you mean 'x'?`` for the closest choice, or an empty string."""
    close = difflib.get_close_matches(word, list(choices), n=1)
    return f"Did you mean {close[0]!r}?" if close else ""
