"""How a run looks while it goes: a bar on a terminal that can move it, plain lines anywhere else."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from lorakit.cli.screen import ACCENT, console, say
from lorakit.training.events import EvaluationEvent, Event, NoteEvent, Reporter, StepEvent

if TYPE_CHECKING:
    from rich.live import Live


def reporter(verbosity: int) -> Reporter:
    """Return the reporter for this screen; `verbosity` below 0 shows notes alone."""
    if verbosity < 0:
        return Notes()
    return Bar() if console().is_interactive else Lines(every_step=verbosity > 0)


class Notes:
    """Says only what must be said."""

    def report(self, event: Event) -> None:
        """Print a note, unless all is as it should be."""
        if isinstance(event, NoteEvent) and not event.routine:
            say(event.text)

    def close(self) -> None:
        """Nothing is held."""


class Lines:
    """One line an evaluation, for logs and pipes; with `every_step` one a step."""

    def __init__(self, every_step: bool) -> None:
        self._every_step = every_step
        self._last: StepEvent | None = None

    def report(self, event: Event) -> None:
        """Print one line, or remember it for the next evaluation."""
        if isinstance(event, NoteEvent):
            say(event.text)
        elif isinstance(event, StepEvent):
            self._last = event
            if self._every_step:
                say(_step_line(event))
        else:
            before = f"{_step_line(self._last)}  " if self._last is not None and not self._every_step else ""
            say(f"{before}{_evaluation_words(event)}")

    def close(self) -> None:
        """Nothing is held."""


class Bar:
    """A progress bar with the losses beside it; pace and memory stand on a line below, so that 80 columns hold both."""

    def __init__(self) -> None:
        self._live: Live | None = None
        self._evaluation = ""

    def report(self, event: Event) -> None:
        """Move the bar, or print a note above it."""
        if isinstance(event, NoteEvent):
            say(event.text)
        elif isinstance(event, EvaluationEvent):
            self._evaluation = _evaluation_words(event)
            if self._live is not None:
                self._progress.update(self._task, evaluation=self._evaluation)
        else:
            self._move(event)

    def close(self) -> None:
        """Leave the bar where it stands."""
        if self._live is not None:
            self._live.stop()

    def _move(self, event: StepEvent) -> None:
        if self._live is None:
            self._start(event.total)
        self._progress.update(
            self._task,
            completed=event.step,
            words=f"step {event.step:,}/{event.total:,}  loss {event.loss:.3f}",
            evaluation=self._evaluation,
            epoch=event.epoch,
        )
        self._pace.plain = (
            f"lr {event.learning_rate:.1e}  {event.tokens_per_second:,.0f} tok/s  {_memory()}  "
            f"{_clock(event.seconds_left)} left"
        )

    def _start(self, total: int) -> None:
        from rich.console import Group
        from rich.live import Live
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
        from rich.text import Text

        self._pace = Text(style="dim")
        self._progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=24, complete_style=ACCENT, finished_style=ACCENT),
            TaskProgressColumn(),
            TextColumn("{task.fields[words]}"),
            TextColumn("{task.fields[evaluation]}", style=ACCENT),
        )
        self._task = self._progress.add_task("", total=total, words="", evaluation=self._evaluation, epoch=1)
        self._live = Live(Group(self._progress, self._pace), console=console())
        self._live.start()


def _step_line(event: StepEvent) -> str:
    return (
        f"epoch {event.epoch}  step {event.step:,}/{event.total:,}  loss {event.loss:.3f}  "
        f"lr {event.learning_rate:.1e}  {event.tokens_per_second:,.0f} tok/s  {_clock(event.seconds_left)} left"
    )


def _evaluation_words(event: EvaluationEvent) -> str:
    best = "best" if event.best_step == event.step else f"best {event.best_loss:.3f}, step {event.best_step:,}"
    details = "".join(
        f" · {name.removesuffix('_loss').replace('_', ' ')} {_number(name, value)}"
        for name, value in event.details.items()
    )
    return f"eval {event.loss:.3f} ({best}){details}"


def _number(name: str, value: float) -> str:
    return f"{value:.3f}" if name.endswith("_loss") else f"{value:.1%}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _memory() -> str:
    """Return the most memory this process has held, as the system counts it."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f"{peak / (1e9 if sys.platform == 'darwin' else 1e6):.1f} GB"
