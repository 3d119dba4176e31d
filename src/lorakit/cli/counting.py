"""How far a list has been worked through: a bar on a terminal, now and then a line in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lorakit.cli import screen

SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def counted(total: int, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Give a function that is told how many of `total` prompts are answered, and shows it on stderr."""
    with told(quiet, "prompts answered") as tell:
        yield lambda done: tell(done, total)


@contextmanager
def told(quiet: bool, what: str) -> Iterator[Callable[[int, int], None]]:
    """Give a function that is told how many of how many are done, and shows it on stderr.

    Args:
        quiet: Show nothing.
        what: What is counted and done with, for a log: ``prompts answered``.
    """
    if quiet:
        yield lambda done, total: None
    elif screen.console().is_interactive:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=screen.console(), transient=True) as progress:
            task = progress.add_task("", total=None)
            yield lambda done, total: progress.update(task, completed=done, total=total)
    else:
        yield _lines(what)


def _lines(what: str) -> Callable[[int, int], None]:
    shown = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal shown
        if done < total and time.monotonic() - shown >= SECONDS_BETWEEN_LINES:
            shown = time.monotonic()
            screen.say(f"{done:,} of {total:,} {what}")

    return tell
