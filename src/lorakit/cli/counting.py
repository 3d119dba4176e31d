"""How far a list of prompts has been answered: a bar on a terminal, now and then a line in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lorakit.cli import screen

SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def counted(total: int, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Give a function that is told how many of `total` prompts are answered, and shows it on stderr."""
    if quiet:
        yield lambda done: None
    elif screen.console().is_terminal:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=screen.console(), transient=True) as progress:
            task = progress.add_task("", total=total)
            yield lambda done: progress.update(task, completed=done)
    else:
        yield _lines(total)


def _lines(total: int) -> Callable[[int], None]:
    shown = time.monotonic()

    def tell(done: int) -> None:
        nonlocal shown
        if done < total and time.monotonic() - shown >= SECONDS_BETWEEN_LINES:
            shown = time.monotonic()
            screen.say(f"{done:,} of {total:,} prompts answered")

    return tell
